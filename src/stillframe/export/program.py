"""ExportedProgram: a captured graph, its signature, its state, and what it was captured under."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe import torch_private
from stillframe.errors import NotSupported
from stillframe.export import listing, verifier
from stillframe.export.assumptions import Assumption
from stillframe.export.call_spec import CallSpec
from stillframe.export.signature import ExportGraphSignature, ModuleCallEntry
from stillframe.export.verdicts import Verdict
from stillframe.shapes.env import Guard
from stillframe.symbolic import Expr, Range

if TYPE_CHECKING:
    from stillframe.export.explain import Explanation
    from stillframe.export.verify import VerificationReport


#: The dialects of a program's graph, from what forward ran to what kernels need.
TRAINING, FUNCTIONAL, CORE = "training", "functional", "core"


class ExportedProgram:
    """What :func:`stillframe.export` returns. Read-only: make a new one to change it.

    Attributes:
        graph_module: the graph as an ``fx.GraphModule`` over flat inputs, lifted state first.
        graph_signature: what each placeholder and output is.
        state_dict: parameters and persistent buffers by FQN (the module's own tensors; buffers
            that the program writes are copies).
        constants: non-persistent buffers and lifted constants by FQN.
        range_constraints: expression -> :class:`~stillframe.symbolic.Range`.
        guards: conditions on sizes beyond the ranges, checked when the program is called.
        module_call_graph: one entry per submodule, the root first.
        example_inputs: ``(args, kwargs)`` of the export call, or None.
        call_spec: how calls are bound: names, defaults, containers.
        out_spec: structure of the result.
        dim_names: symbol name -> the user's name of the dim.
        notes: what the capture assumed that a reader should know.
        assumptions: what forward asked of its inputs and of torch's modes besides sizes and
            dtypes, checked when the program is called.
        verdicts: what became of every size of the inputs, and why.
        proposed_spec: where dims were left open (``Dim.AUTO``): Python text that declares what the
            program admits.
        dialect: ``"training"`` (what forward ran, in-place operators included), ``"functional"``
            (no operator writes) or ``"core"`` (functional, core operators only).
        fallbacks: operators that were answered without a shape rule, with counts.
        runtime_asserts: whether conditions on data are checked; the notes list those that are not.
    """

    def __init__(
        self,
        *,
        graph_module: torch.fx.GraphModule,
        graph_signature: ExportGraphSignature,
        state_dict: Mapping[str, Any],
        constants: Mapping[str, Any],
        range_constraints: dict[Expr, Range],
        guards: list[Guard],
        module_call_graph: list[ModuleCallEntry],
        example_inputs: tuple[tuple[Any, ...], dict[str, Any]] | None,
        call_spec: CallSpec,
        out_spec: pytree.TreeSpec,
        training: bool = False,
        root_class: str = "Module",
        dim_names: dict[str, str] | None = None,
        notes: list[str] | None = None,
        fallbacks: Mapping[str, int] | None = None,
        verdicts: Sequence[Verdict] = (),
        proposed_spec: str = "",
        assumptions: Sequence[Assumption] = (),
        dialect: str = TRAINING,
        runtime_asserts: bool = True,
    ) -> None:
        self.graph_module = graph_module
        self.graph_signature = graph_signature
        self.state_dict = state_dict
        self.constants = constants
        self.range_constraints = range_constraints
        self.guards = guards
        self.module_call_graph = module_call_graph
        self.example_inputs = example_inputs
        self.call_spec = call_spec
        self.out_spec = out_spec
        self.training = training
        self.root_class = root_class
        self.dim_names = dim_names or {}
        self.notes = notes or []
        self.fallbacks = dict(fallbacks or {})
        self.verdicts = tuple(verdicts)
        self.proposed_spec = proposed_spec
        self.assumptions = tuple(assumptions)
        self.dialect = dialect
        self.runtime_asserts = runtime_asserts
        verifier.check(self)

    @property
    def graph(self) -> torch.fx.Graph:
        """The fx graph of :attr:`graph_module`."""
        return self.graph_module.graph

    def module(self) -> torch.nn.Module:
        """A callable module: the original signature, parameters under their original names.

        Calls are checked: an input that the program was not made for raises
        :class:`~stillframe.errors.CallError` naming the argument.
        """
        from stillframe.export.runner import build_module

        self.verify_weights()
        module: torch.nn.Module = build_module(self)
        return module

    def verify_weights(self) -> None:
        """Check the tensors of a loaded program against their digests, once.

        Raises:
            ArtifactError: the file was altered.
        """
        verify = getattr(self.state_dict, "verify_weights", None)
        if verify is not None:
            verify()

    def with_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True
    ) -> ExportedProgram:
        """The same graph with other weights. This program is not changed.

        Tensors are taken over, not copied, unless the program writes them or their strides are
        others; names that are tied stay so.

        Args:
            state_dict: parameters and persistent buffers by FQN, of the same shapes and dtypes.
            strict: all names must be there, and no others; else missing ones keep their tensors.

        Raises:
            InvalidInput: names, shapes, dtypes or ties do not fit; tells all of them.
        """
        from stillframe.export.new_state import with_state_dict

        (program,) = with_state_dict([self], state_dict, strict)
        return program

    def verify(
        self, mod: Callable[..., Any], samples: int = 3, seed: int = 0
    ) -> VerificationReport:
        """Run the program and ``mod`` on inputs of other sizes inside the declared ranges.

        Args:
            mod: the module, or the method of it, that was exported.
            samples: how many sets of sizes to try, besides the example's.
            seed: of the sizes and values drawn.

        Raises:
            VerificationError: they differ; names the sizes, the output and the difference.
        """
        from stillframe.export.verify import verify

        return verify(self, mod, samples, seed)

    def explain(self, about: str | None = None) -> Explanation:
        """Why each size is as it is, with the user's lines; ``print`` it.

        Args:
            about: only what concerns this input, size or dim: ``"x"``, ``"x.size(0)"``, ``"b"``.

        Raises:
            InvalidInput: nothing of that name.
        """
        from stillframe.export.explain import explain

        explanation = explain(self)
        return explanation if about is None else explanation.about(about)

    def run_decompositions(self, table: Mapping[Any, Any] | None = None) -> ExportedProgram:
        """The program in functional form, its operators taken apart. This one is not changed.

        No operator of the new graph writes. Buffers and inputs that the program writes become
        outputs, which the new program's :meth:`module` copies back. Symbols, ranges, guards,
        run-time checks and random draws are those of this program.

        Args:
            table: operator overload -> a function of the same arguments that is run in its place.
                None is :func:`stillframe.default_decompositions`, which leaves core operators;
                ``{}`` takes nothing apart.

        Raises:
            InvalidInput: a key that is no overload, an entry that is no function.
            NotSupported: the program does what no functional program can, or an operator cannot
                be taken apart for all sizes; names it.
        """
        from stillframe.export.decompose import run_decompositions

        return run_decompositions(self, table)

    def joint(
        self, loss_index: int | None = None, table: Mapping[Any, Any] | None = None
    ) -> ExportedProgram:
        """Forward and backward in one functional graph.

        The outputs are those of the functional program, the loss among them marked as such, then
        the gradients of the loss: to parameters, then to inputs that require grad. Inputs that the
        loss does not depend on have none. The new program's :meth:`module` returns a
        :class:`~stillframe.export.signature.JointResult`.

        Args:
            loss_index: which output is the loss, a scalar.
            table: as for :meth:`run_decompositions`.

        Raises:
            InvalidInput: that output is no loss, or another one requires grad.
            NotSupported: as for :meth:`run_decompositions`; or a write that has no gradient.
        """
        from stillframe.export.joint import joint

        return joint(self, loss_index, table)

    def __str__(self) -> str:
        return listing.program_text(self)

    def __repr__(self) -> str:
        nodes = len(self.graph.nodes)
        return f"<ExportedProgram of {self.root_class}: {nodes} nodes; print() shows it>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotSupported(
            "An ExportedProgram is not called itself.", hints=["program.module()(*args, **kwargs)"]
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise NotSupported(
            "An ExportedProgram is not pickled.",
            hints=["stillframe.save(program, path) and stillframe.load(path)"],
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> ExportedProgram:
        state = {k: copy.deepcopy(v, memo) for k, v in self.state_dict.items()}
        constants = {k: copy.deepcopy(v, memo) for k, v in self.constants.items()}
        graph = torch.fx.Graph()
        output = graph.output(graph.graph_copy(self.graph, {}))
        output.meta = dict(next(reversed(self.graph.nodes)).meta)
        for old, new in zip(self.graph.nodes, graph.nodes, strict=True):
            if old.op == "placeholder":  # fx renames those that shadow a builtin, such as "input"
                new.name = new.target = old.name
        return self._replaced(
            graph_module=torch_private.lazy_graph_module(graph, self.graph_module),
            state_dict=state,
            constants=constants,
        )

    def _replaced(self, **fields: Any) -> ExportedProgram:
        """A program with some fields changed."""
        names = (
            "graph_module", "graph_signature", "state_dict", "constants", "range_constraints",
            "guards", "module_call_graph", "example_inputs", "call_spec", "out_spec", "training",
            "root_class", "dim_names", "notes", "fallbacks", "verdicts", "proposed_spec",
            "assumptions", "dialect", "runtime_asserts",
        )  # fmt: skip
        return ExportedProgram(**{**{n: getattr(self, n) for n in names}, **fields})
