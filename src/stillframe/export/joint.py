"""``joint``: forward and backward of a program in one functional graph.

The program is brought into functional form first. Its graph then runs once more with autograd on,
above a recorder that sees operators as kernels would: those of forward, and those that
``torch.autograd.grad`` calls for the loss. What comes out has no trace of autograd: it computes
gradients like any other values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import replace
from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import InvalidInput, NotSupported
from stillframe.export.decompose import (
    Rerun,
    forbid_gradients,
    outputs_of,
    run_decompositions,
    table_in_use,
)
from stillframe.export.program import ExportedProgram
from stillframe.export.signature import InputKind, OutputKind, OutputSpec, TensorArgument
from stillframe.export.subgraphs import symbols_of
from stillframe.fake.tensor import FakeTensor
from stillframe.symbolic import Expr, eq
from stillframe.trace import higher_order
from stillframe.trace.autograd_functions import OPERATOR
from stillframe.trace.functional import FunctionalRecorder

aten = torch.ops.aten

_GRADIENTS = {
    InputKind.PARAMETER: OutputKind.GRADIENT_TO_PARAMETER,
    InputKind.USER_INPUT: OutputKind.GRADIENT_TO_USER_INPUT,
}


def joint(
    program: ExportedProgram, loss_index: int | None, table: Mapping[Any, Any] | None
) -> ExportedProgram:
    """The work behind :meth:`ExportedProgram.joint`."""
    _check_index(program, loss_index)
    assert loss_index is not None
    _refuse_computed_constants(program)
    entries, dialect = table_in_use(table)
    functional = run_decompositions(program, table)
    _refuse_lost_gradients(functional)
    run = _Joint(functional, entries)
    run.loss_index = loss_index
    return run.run(dialect)


def _check_index(program: ExportedProgram, index: int | None) -> None:
    kinds = [s.kind for s in program.graph_signature.output_specs]
    count = kinds.count(OutputKind.USER_OUTPUT)
    if OutputKind.LOSS_OUTPUT in kinds:
        raise InvalidInput("This program is a joint graph already.")
    if index is None or isinstance(index, bool) or not 0 <= index < count:
        raise InvalidInput(
            f"joint needs the place of the loss among the {count} outputs, got {index!r}.",
            hints=["program.joint(loss_index=0) if forward returns the loss (first)"],
        )


def _refuse_computed_constants(program: ExportedProgram) -> None:
    """A constant that the module computed from its parameters before, and kept."""
    placeholders = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"}
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.CONSTANT_TENSOR and spec.target is not None:
            real = program.constants[spec.target]
            if placeholders[spec.arg.name].requires_grad and not real.requires_grad:
                raise NotSupported(
                    f"The constant {spec.target} was computed from tensors that require grad.",
                    why="its gradient would go on to them, and the program holds its value only",
                    hints=["export after the module forgot it, for a cache after module.train()"],
                )


def _refuse_lost_gradients(program: ExportedProgram) -> None:
    switches = [n for n in program.graph.nodes if n.target is torch_private.set_grad_enabled]
    if len(switches) == 1 and not switches[0].args[0]:
        raise NotSupported(
            "The program writes to a tensor that requires grad under no_grad, or through detach.",
            why="the gradient that eager gives then is not the one of any functional program",
            hints=["write to tensors that do not require grad, or compute new ones"],
        )


class JointRecorder(FunctionalRecorder):
    """Records below autograd: what it returns is held by autograd alone."""

    @property
    def above_autograd(self) -> bool:
        """Whether operators are recorded before autograd takes effect."""
        return False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Operators are recorded inside; switches of grad mode take effect above."""
        with contextlib.ExitStack() as entered:
            if self.mode not in torch_private.dispatch_modes():
                entered.enter_context(self.mode)
            yield

    def create(
        self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None = None
    ) -> torch.fx.Node:
        """A node; in a subgraph it knows whether gradients flow through it."""
        node = super().create(target, args, kwargs, name)
        if self.subgraph is not None:
            self.subgraph.note_grad_mode(node)
        return node

    def describe(self, node: torch.fx.Node, value: Any) -> None:
        """Write the metadata of a node for the value that it computes."""
        super().describe(node, _snapshot(value))

    def _record_plain(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        before = next(reversed(self.graph.nodes), None)
        result = super()._record_plain(func, args, kwargs)
        for node in reversed(self.graph.nodes):
            if node is before:
                break
            node.meta["val"] = _snapshot(node.meta.get("val"))
        return result

    def _does_nothing(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Below autograd, a detached tensor is the tensor; a subgraph is differentiated later."""
        if self.subgraph is not None and func is aten.detach.default:
            return False
        with torch.enable_grad():  # grad mode has done its work above
            return func is aten.detach.default or super()._does_nothing(func, args, kwargs)


def _snapshot(val: Any) -> Any:
    """The metadata in objects of their own: autograd copies results that others hold too."""
    if isinstance(val, FakeTensor):
        return val.snapshot()
    if isinstance(val, (list, tuple)):
        return type(val)([_snapshot(v) for v in val])
    return val


class _Joint(Rerun):
    """One run over a functional program, with its backward pass."""

    recorder_class = JointRecorder
    loss_index = 0

    def _run_nodes(self) -> None:
        recorder = self.recorder
        recorder.fake_mode.sets_requires_grad = False
        with (
            torch_private.compiling_flags(),
            torch_private.autocast_cache_disabled(),
            higher_order.intercepted(recorder),
            recorder.mode,
        ):
            super()._run_nodes()
            self._run_backward()
            recorder.flush_asserts()

    def _call(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target is aten.copy.default:  # it has no derivative
            return aten.copy_.default(aten.clone.default(args[0]), args[1])
        # the code in C++ takes sizes for plain numbers
        in_python = torch_private.python_kernel(target, "CompositeImplicitAutograd")
        return (in_python or target)(*args, **kwargs)

    def _run_higher_order(self, node: torch.fx.Node) -> Any:
        """The operator is called with functions, which are made subgraphs again below autograd."""
        op: Any = node.target
        readers = [n for n in node.all_input_nodes if n.op == "get_attr"]
        others = [n for n in node.all_input_nodes if n.op != "get_attr"]
        outside = {s for n in others for s in symbols_of(n.meta["val"])}
        own = [self._own_symbols(n, outside) for n in readers]
        if op is OPERATOR:  # its functions run as they are, the second one later
            own = [[] for _ in readers]
        bindings = list(node.meta.get("unbacked_bindings", {}))
        after = [] if op is OPERATOR else bindings
        following = dict(zip(readers, [*own[1:], after], strict=True))

        def value(n: torch.fx.Node) -> Any:
            return self._function(n, following[n]) if n in following else self.values[n]

        args, kwargs = _filled((node.args, node.kwargs), value)
        self.env.plan(own[0])
        result = op(*args, **kwargs)
        if bindings:
            self._check_symbols(node, result)
        return result

    def _own_symbols(self, reader: torch.fx.Node, outside: Set[Expr]) -> list[Expr]:
        """Symbols that a subgraph's placeholders bring along, such as an integer of a loop."""
        module = getattr(self.owner, str(reader.target))
        inputs = [n.meta["val"] for n in module.graph.nodes if n.op == "placeholder"]
        found = dict.fromkeys(s for val in inputs for s in symbols_of(val) if s not in outside)
        return [s for s in found if s not in self.env.hints]

    def _function(self, reader: torch.fx.Node, following: list[Expr]) -> Callable[..., Any]:
        """A subgraph as a function; ``following`` are the symbols that are made next."""
        module = getattr(self.owner, str(reader.target))
        inputs = [n for n in module.graph.nodes if n.op == "placeholder"]
        output = next(reversed(module.graph.nodes))

        def run(*values: Any) -> Any:
            self.values.update(zip(inputs, values, strict=True))
            with self.inside(module), self.recorder.inside_subgraph():
                self.run_graph(module.graph)
            self.env.plan(following)
            return _filled(output.args[0], self.values.__getitem__)

        return run

    def _switch_gradients(self, node: torch.fx.Node) -> None:
        torch.set_grad_enabled(bool(node.args[0]))

    # -- backward ---------------------------------------------------------------------------------

    def _run_backward(self) -> None:
        loss = self._loss()
        leaves = [(s, v) for s, _, v in self.inputs if s.kind in _GRADIENTS and _is_leaf(v)]
        leaves.sort(key=lambda leaf: leaf[0].kind is InputKind.USER_INPUT)
        tensors = [v for _, v in leaves]
        with torch.enable_grad():
            found = torch.autograd.grad(loss, tensors, allow_unused=True) if tensors else ()
        self.gradients = [(s, g) for (s, _), g in zip(leaves, found, strict=True) if g is not None]

    def _loss(self) -> FakeTensor:
        """The loss; everything else that the user gets has no gradient."""
        specs = self.program.graph_signature.output_specs
        output = next(reversed(self.program.graph.nodes))
        users = [
            self.argument(value)
            for value, spec in zip(outputs_of(output), specs, strict=True)
            if spec.kind is OutputKind.USER_OUTPUT
        ]
        for i, value in enumerate(users):
            if i != self.loss_index and isinstance(value, FakeTensor) and value.requires_grad:
                raise InvalidInput(
                    f"Output {i} requires grad, and only the loss may.",
                    hints=["return y.detach() for outputs that are not differentiated"],
                )
        loss = users[self.loss_index]
        if not isinstance(loss, FakeTensor) or not self._is_scalar(loss):
            raise InvalidInput(
                f"Output {self.loss_index} is no scalar tensor, so it is no loss.",
                hints=["return loss.sum() or loss.mean()"],
            )
        if not loss.requires_grad:
            raise InvalidInput(
                f"Output {self.loss_index} does not require grad: no parameter and no input that "
                "requires grad takes part in it.",
            )
        return loss

    def _is_scalar(self, loss: FakeTensor) -> bool:
        known = self.recorder.fake_mode.ctx.known
        return all(known(eq(size, 1)) is True for size in loss.sizes)

    # -- outputs ----------------------------------------------------------------------------------

    def _make_output(self, old: torch.fx.Node) -> list[OutputSpec]:
        """The outputs of the functional program, the loss marked, and the gradients."""
        graph = self.recorder.graph
        operands: list[Any] = []
        specs: list[OutputSpec] = []
        users = 0
        old_specs = self.program.graph_signature.output_specs
        for value, spec in zip(outputs_of(old), old_specs, strict=True):
            operand, new = self._output(value, spec)
            if spec.kind is OutputKind.USER_OUTPUT:
                if users == self.loss_index:
                    new = replace(new, kind=OutputKind.LOSS_OUTPUT)
                users += 1
            operands.append(operand)
            specs.append(new)
        for source, gradient in self.gradients:
            node = self.recorder.operand(gradient)
            target = source.arg.name if source.kind is InputKind.USER_INPUT else source.target
            operands.append(node)
            specs.append(OutputSpec(_GRADIENTS[source.kind], TensorArgument(node.name), target))
        self._finish_output(operands)
        forbid_gradients(graph, self.recorder.subgraphs)
        return specs


def _filled(value: Any, of_node: Callable[[torch.fx.Node], Any]) -> Any:
    """Containers of nodes with values in their place."""
    if isinstance(value, torch.fx.Node):
        return of_node(value)
    if isinstance(value, (list, tuple)):
        return (tuple if isinstance(value, tuple) else list)(_filled(v, of_node) for v in value)
    if isinstance(value, dict):
        return {k: _filled(v, of_node) for k, v in value.items()}
    return value


def _is_leaf(value: Any) -> bool:
    return isinstance(value, FakeTensor) and value.requires_grad
