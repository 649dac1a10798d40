"""Editor: a program's graph, copied with some values made anew.

Where a helper wants another value, a Python function is run on the carried fakes under a recorder,
and what it does becomes nodes; their metadata comes from the shape rules. What a function does must
be right for the memory of the program as well as for its values, so :meth:`Editor.replace` looks at
who shares memory with the old and the new value, and who writes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import InvalidInput, NotSupported
from stillframe.export import effects, passes
from stillframe.export.assumptions import Assumption, assumptions
from stillframe.export.decompose import forbid_gradients, outputs_of
from stillframe.export.program import CORE, TRAINING, ExportedProgram
from stillframe.export.signature import (
    ExportGraphSignature,
    InputKind,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from stillframe.export.state import RandomState
from stillframe.export.surgery.copying import GraphCopy, is_user
from stillframe.export.surgery.memory import may_view, storages
from stillframe.export.surgery.recorders import FunctionalEditRecorder
from stillframe.fake.tensor import FakeTensor
from stillframe.trace.decompositions import default_table, is_core

aten = torch.ops.aten

_WRITTEN_BACK = {
    InputKind.PARAMETER: OutputKind.PARAMETER_MUTATION,
    InputKind.BUFFER: OutputKind.BUFFER_MUTATION,
}


class Editor(GraphCopy):
    """One edit of one program; see :class:`GraphCopy`."""

    # -- new values -------------------------------------------------------------------------------

    def run(
        self, function: Callable[..., Any], inputs: Sequence[torch.fx.Node], origin: torch.fx.Node
    ) -> list[Any]:
        """The leaves of ``function(*inputs)``, recorded at the present end of the graph.

        Args:
            function: of tensors; a module must have been given to ``state.add_module``.
            inputs: nodes of the program.
            origin: new nodes say that they come from where this one came from.
        """
        given = [self.values[node] for node in inputs]
        self._know_state()
        for_random = RandomState()
        outputs: list[Any] = []
        try:
            with effects.needed_data_told():
                with (
                    torch_private.ambient_modes_off(),
                    torch_private.autocast_off(),
                    torch.inference_mode(False),
                    torch.set_grad_enabled(self._grad),
                    self.recorder.run_of(origin),
                    self.state.swapped(function, given, outputs),
                ):
                    with self.recorder.recording():
                        result = function(*given)
                    outputs += result if isinstance(result, (list, tuple)) else [result]
                self.recorder.flush_asserts()
                effects.check_random(for_random)
        finally:
            for_random.restore()
        return [self._tensor(value, origin) for value in outputs]

    def _tensor(self, value: Any, origin: torch.fx.Node) -> Any:
        """A result of a function: a tensor of the new graph, or None."""
        if value is None:
            return None
        if not isinstance(value, torch.Tensor):
            raise InvalidInput(
                f"The function that was run for {origin.name} returned {type(value).__name__}.",
                hints=["return tensors, one or a tuple of them"],
            )
        with self.recorder.run_of(origin):
            fake = self.recorder.fake_mode.adopt(value)
            self.recorder.operand(value)
        return fake

    def replace(
        self,
        node: torch.fx.Node,
        new: FakeTensor,
        position: int,
        removed: Set[torch.fx.Node] = frozenset(),
    ) -> None:
        """Whoever uses ``node`` after ``position`` uses ``new`` from now on.

        Args:
            node: of the program.
            new: what :meth:`run` returned.
            position: place in the old graph at which ``new`` was computed.
            removed: nodes that are not copied.

        Raises:
            NotSupported: sizes, dtype or device differ; or the value shares memory with others,
                and a later write would no longer show where it did.
        """
        old = node.meta["val"]
        self._check_fit(node, old, new)
        with self.recorder.run_of(node), torch.set_grad_enabled(self._grad):
            new = self._in_own_memory(node, new, position, removed)
        if self.memory.begins_at(node):  # so all that shows this memory comes after it
            self._storages.pop(id(old.storage_), None)
        self._note(node, old, new)
        self._groups.setdefault(id(new.storage_), self.memory.group(old.storage_))
        self.values[node] = new
        self.nodes.pop(node, None)

    def _in_own_memory(
        self, node: torch.fx.Node, new: FakeTensor, position: int, removed: Set[torch.fx.Node]
    ) -> FakeTensor:
        """``new``, or a copy of it where a write or the caller could tell that it is a view."""
        memory = self.memory
        mine = memory.groups(node)
        writer = memory.writer(mine, position, without=removed)
        is_input = node.op == "placeholder"
        if writer is not None and (is_input or self._is_shared(node, mine, position, removed)):
            raise NotSupported(
                f"The value of {node.name} cannot be replaced: {writer.name} ({writer.target}) "
                "writes its memory afterwards, and others see that memory too.",
                hints=["capture or decompose the program into functional form first: "
                       "program.run_decompositions()"],
            )  # fmt: skip
        groups, is_brought = self._sources(new)
        foreign = groups - mine
        returned = any(
            isinstance(v, torch.fx.Node) and memory.groups(v) & mine
            for v in outputs_of(next(reversed(self.graph.nodes)))
        )
        is_seen = returned or memory.writer(mine | groups, position, without=removed) is not None
        if is_brought or (foreign and is_seen):
            copied: FakeTensor = self.recorder.record(aten.clone.default, (new,), {})
            return copied
        return new

    def _is_shared(
        self, node: torch.fx.Node, mine: set[int], position: int, removed: Set[torch.fx.Node]
    ) -> bool:
        """Whether a value from before ``position`` is in the same memory and is used after it."""
        place = self.memory.position
        return any(
            other.op == "placeholder"
            or any(place[user] > position and user not in removed for user in other.users)
            for other in self.memory.members(mine)
            if other is not node and other not in removed and place[other] <= position
        )

    def _sources(self, new: FakeTensor) -> tuple[set[int], bool]:
        """The groups of old memory that ``new`` may show, and whether it may show new state."""
        groups = {self._groups[id(new.storage_)]} if id(new.storage_) in self._groups else set()
        is_brought = self.state.holds(new.storage_)
        pending, seen = [self.recorder.operand(new)], set()
        while pending:
            node = pending.pop()
            if node in seen:
                continue
            seen.add(node)
            for storage in storages(node.meta.get("val")):
                is_brought = is_brought or self.state.holds(storage)
                if id(storage) in self._groups:
                    groups.add(self._groups[id(storage)])
            pending += may_view(node)
        return groups, is_brought

    # -- the new program --------------------------------------------------------------------------

    def finish(self) -> ExportedProgram:
        """The new program; everything that is to be in its graph has been copied or run.

        Raises:
            NotSupported: what a function did has no form in the dialect of the program.
        """
        recorder, program = self.recorder, self.program
        specs = self._make_output()
        graph = recorder.graph
        if isinstance(recorder, FunctionalEditRecorder):
            self._check_functional(recorder)
            if recorder.loses_gradients:
                forbid_gradients(graph, recorder.subgraphs)
        recorder.finish()
        for inner in recorder.subgraphs:
            passes.run(inner)
        passes.run(graph)
        self._check_core(graph)
        module = torch_private.lazy_graph_module(graph, recorder.root)
        module.meta.update(program.graph_module.meta)
        state, constants = self.state.tables()
        fallbacks = Counter(program.fallbacks) + recorder.fake_mode.fallbacks
        return program._replaced(
            graph_module=module,
            graph_signature=ExportGraphSignature(self.state.input_specs, specs),
            state_dict=state,
            constants=constants,
            notes=[*program.notes, *self.state.notes, *recorder.notes],
            fallbacks=fallbacks,
            assumptions=self._assumptions(),
        )

    def _make_output(self) -> list[OutputSpec]:
        old_specs = self.program.graph_signature.output_specs
        written = self.state.written() if self.program.dialect != TRAINING else []
        changed = {b.node for b in written} | self._written_back()
        specs: list[OutputSpec] = []
        operands: list[Any] = []
        for b in written:
            node = self._apart(self.recorder.operand(b.fake), changed)
            operands.append(node)
            kind = _WRITTEN_BACK[b.spec.kind]
            specs.append(OutputSpec(kind, TensorArgument(node.name), b.spec.target))
        old_output = next(reversed(self.graph.nodes))
        for value, spec in zip(outputs_of(old_output), old_specs, strict=True):
            if isinstance(value, torch.fx.Node):
                value = self._apart(self.operand(value), changed)
                spec = replace(spec, arg=replace(spec.arg, name=value.name))
            operands.append(value)
            specs.append(spec)
        output = self.recorder.graph.output(tuple(operands))
        output.meta["val"] = tuple(
            o.meta["val"] if isinstance(o, torch.fx.Node) else o for o in operands
        )
        return specs

    def _written_back(self) -> set[torch.fx.Node]:
        """Placeholders that the program's module copies results back to."""
        signature = self.program.graph_signature
        kinds = (*_WRITTEN_BACK.values(), OutputKind.USER_INPUT_MUTATION)
        targets = {s.target for s in signature.output_specs if s.kind in kinds}
        names = {
            s.arg.name
            for s in signature.input_specs
            if (s.arg.name if is_user(s) else s.target) in targets
        }
        return {new for old, new in self.placeholders.items() if old.name in names}

    def _check_functional(self, recorder: FunctionalEditRecorder) -> None:
        if recorder.needs_layout or recorder.subgraphs:
            what = "depends on the layout of memory" if recorder.needs_layout else "has a subgraph"
            raise NotSupported(
                f"What a function does {what}, which a functional program cannot express.",
                hints=["edit the program before run_decompositions()"],
            )

    def _check_core(self, graph: torch.fx.Graph) -> None:
        if self.program.dialect != CORE:
            return
        for node in graph.nodes:
            op = node.target
            if isinstance(op, torch._ops.OpOverload) and not is_core(op):
                if default_table().get(op) is not None:
                    raise NotSupported(
                        f"A function calls {op}, which is no core operator and cannot be taken "
                        "apart here.",
                        hints=["edit the program before run_decompositions()"],
                    )

    def _assumptions(self) -> list[Assumption]:
        """Those of the program, and what the functions asked besides sizes and dtypes."""
        program = self.program
        known = {(a.about, a.what) for a in program.assumptions}
        user: dict[str, Any] = {}
        state: dict[str, FakeTensor] = {}
        for new, spec in zip(
            self.placeholders.values(), program.graph_signature.input_specs, strict=True
        ):
            value = new.meta["val"]
            if is_user(spec):
                user[new.name] = value
            elif isinstance(value, FakeTensor):
                state[new.name] = value
        with torch.set_grad_enabled(self._grad):
            asked = assumptions(self.recorder.reads.found.values(), user, state)
        added = [a for a in asked if (a.about, a.what) not in known]
        return [*program.assumptions, *added]
