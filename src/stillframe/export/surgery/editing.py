"""Editor: a program's graph, copied node by node, with some values made anew.

A node that is copied keeps its name, its operands and its metadata, which is carried into an
environment that knows all that the program knows of its symbols. Where a helper wants something
else, a Python function is run on the carried fakes under a recorder, and what it does becomes
nodes; their metadata comes from the shape rules. If a value comes out with other strides or in
other memory than before, the nodes after it are answered by the shape rules too, until nothing
differs any more. Sizes and dtypes may not change.

What a function does must be right for the memory of the program as well as for its values, so
:meth:`Editor.replace` looks at who shares memory with the old and the new value, and who writes it.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import InvalidInput, NotSupported, StillframeError
from stillframe.export import effects, passes
from stillframe.export.assumptions import Assumption, assumptions
from stillframe.export.decompose import environment_of, forbid_gradients, may_show, outputs_of
from stillframe.export.door import Door
from stillframe.export.listing import value_text
from stillframe.export.program import CORE, TRAINING, ExportedProgram
from stillframe.export.signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from stillframe.export.state import RandomState
from stillframe.export.surgery.memory import Memory, may_view, storages
from stillframe.export.surgery.recorders import EditRecorder, FunctionalEditRecorder
from stillframe.export.surgery.state import BroughtState
from stillframe.fake.tensor import FakeStorage, FakeTensor
from stillframe.shapes.continued import ContinuedEnv
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr, eq
from stillframe.trace import operators
from stillframe.trace.decompositions import Decompositions, default_table, is_core

aten = torch.ops.aten

#: Operators whose results are other values, or other numbers, where an operand is laid out anew.
_COUNT_IN_MEMORY = frozenset(
    {
        aten.as_strided.default, aten.as_strided_.default, aten.as_strided_copy.default,
        aten.as_strided_scatter.default, aten._reshape_alias.default,
        aten._reshape_alias_copy.default, aten.sym_stride.int, aten.sym_storage_offset.default,
    }
)  # fmt: skip

_WRITTEN_BACK = {
    InputKind.PARAMETER: OutputKind.PARAMETER_MUTATION,
    InputKind.BUFFER: OutputKind.BUFFER_MUTATION,
}
_INPUTS = (
    InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR, InputKind.USER_INPUT,
)  # fmt: skip
_JOINT = (OutputKind.LOSS_OUTPUT, OutputKind.GRADIENT_TO_PARAMETER)


class Editor:
    """One edit of one program.

    Args:
        program: is not changed.

    Attributes:
        graph: the graph of ``program``.
        memory: who shares memory there.
        env, recorder: of the new graph.
        values: node of ``program`` -> its value in the new graph.
        nodes: node of ``program`` -> its copy, where it is there and was not replaced.
        placeholders: placeholder of ``program`` -> its copy.
        state: what functions bring along.

    Raises:
        NotSupported: the program is a joint graph, or has inputs of a kind that is not edited.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.graph = program.graph
        _refuse_kinds(program)
        self.memory = Memory(self.graph)
        self.env = ContinuedEnv(environment_of(self.graph))
        self.recorder = self._new_recorder()
        self.recorder.begin({n.name for n in self.graph.nodes})
        self.values: dict[torch.fx.Node, Any] = {}
        self.nodes: dict[torch.fx.Node, torch.fx.Node] = {}
        self.placeholders: dict[torch.fx.Node, torch.fx.Node] = {}
        self.state = BroughtState(program, self.recorder)
        self._differing: set[torch.fx.Node] = set()
        self._carried: dict[int, FakeTensor] = {}
        self._storages: dict[int, FakeStorage] = {}
        self._groups: dict[int, int] = {}  # identity of new memory -> group of the old
        self._knows_state = False
        self._grad = _follows_gradients(self.graph)
        for name, module in program.graph_module.named_children():
            self.recorder.root.add_module(name, module)
        self._make_placeholders()

    def _new_recorder(self) -> EditRecorder | FunctionalEditRecorder:
        if self.program.dialect == TRAINING:
            return EditRecorder(self.env, self._lift)
        table = default_table() if self.program.dialect == CORE else Decompositions({})
        return FunctionalEditRecorder(self.env, table, self._lift)

    def _lift(self, real: torch.Tensor, fake: FakeTensor) -> torch.fx.Node:
        return self.state.lift(real, fake)

    # -- carrying what is there -------------------------------------------------------------------

    def _make_placeholders(self) -> None:
        old = [n for n in self.graph.nodes if n.op == "placeholder"]
        specs = self.program.graph_signature.input_specs
        for node, spec in zip(old, specs, strict=True):
            value = self.carry(node.meta["val"])
            again = isinstance(value, FakeTensor) and value.fx_node is not None
            new = self.state.placeholder(node.name, value, spec, again=again)
            self.nodes[node], self.values[node] = new, value
            self.placeholders[node] = new
        user = [self.values[n] for n, s in zip(old, specs, strict=True) if _is_user(s)]
        for (leaf, dim), solution in Door.of(self.program).solved.items():
            self.recorder.symbols.bind_derived(
                solution.symbol, user[leaf].sizes[dim], solution.scale, solution.offset
            )

    def _know_state(self) -> None:
        """From now on, functions may use the program's own tensors."""
        if self._knows_state:
            return
        self._knows_state = True
        specs = self.program.graph_signature.input_specs
        fakes = {}
        for new, spec in zip(self.placeholders.values(), specs, strict=True):
            if spec.target is not None and isinstance(new.meta["val"], FakeTensor):
                fakes[spec.target] = new.meta["val"]
        self.state.know_program_state(fakes)

    def carry(self, val: Any) -> Any:
        """Metadata of the program in the new environment; one tensor stays one tensor."""
        if isinstance(val, FakeTensor):
            known = self._carried.get(id(val))
            if known is None:
                known = self._carried[id(val)] = self._carry_tensor(val)
            return known
        if isinstance(val, (list, tuple)):
            return type(val)(self.carry(v) for v in val)
        size = to_size(val)
        return self.env.wrap(size) if isinstance(size, Expr) else val

    def _carry_tensor(self, val: FakeTensor) -> FakeTensor:
        storage = self._storages.get(id(val.storage_))
        if storage is None:
            storage = FakeStorage(given=val.storage_.given)
            storage.written = val.storage_.written
            self._note_storage(val.storage_, storage)
        made = FakeTensor.make(
            self.env, val.sizes, val.strides, val.offset, val.dtype, val.device,
            val.requires_grad, storage,
        )  # fmt: skip
        made.constant, made.symbolic_value = val.constant, val.symbolic_value
        if getattr(val, "_is_param", False):
            made._is_param = True
        return made

    def _note_storage(self, old: FakeStorage, new: FakeStorage) -> None:
        self._storages[id(old)] = new
        self._groups[id(new)] = self.memory.group(old)
        self.recorder.foreign[id(new)] = "a value of the program"

    # -- copying ----------------------------------------------------------------------------------

    def copy(self, node: torch.fx.Node) -> None:
        """Have ``node`` in the new graph as it is."""
        old = node.meta.get("val")
        differs = not self._differing.isdisjoint(node.all_input_nodes)
        is_check = node.target is aten._assert_tensor_metadata.default
        operand = self._as_given if is_check else self.operand
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), operand)
        new = self.recorder.graph.create_node(node.op, node.target, args, kwargs)
        new.name = node.name
        new.meta.update(node.meta)
        value = self._answer(node, old) if differs else self.carry(old)
        new.meta["val"] = value
        self._track(node, new, value)
        if node.target is torch_private.set_grad_enabled:
            self._grad = bool(node.args[0])

    def _as_given(self, node: torch.fx.Node) -> Any:
        """The operand of a check: an input as the caller gives it, whatever it was replaced by."""
        return self.placeholders.get(node) or self.operand(node)

    def operand(self, node: torch.fx.Node) -> Any:
        """What stands for a node of the program in the new graph."""
        new = self.nodes.get(node)
        return self.recorder.operand(self.values[node]) if new is None else new

    def _track(self, node: torch.fx.Node, new: torch.fx.Node, value: Any) -> None:
        """``new`` stands for ``node``, computes ``value``, and binds the symbols of it."""
        self.nodes[node], self.values[node] = new, value
        self.recorder.track(value, new)
        bindings = node.meta.get("unbacked_bindings", {})
        for symbol, path in bindings.items():
            self._bind(symbol, path, new, value)
        size = to_size(value)
        if isinstance(size, Expr) and not bindings:
            self.recorder.symbols.bind(size, new)

    def _bind(self, symbol: Expr, path: tuple[Any, ...], new: torch.fx.Node, value: Any) -> None:
        """``symbol`` is read from the data by ``new``, and found at ``path`` of its value."""
        indices = tuple(p for p in path if type(p) is int)
        if path[-2:-1] == ("size",):
            for index in indices[:-1]:
                value = value[index]
            self.recorder.symbols.bind_size(
                symbol, lambda: self.recorder.operand(value), indices[-1]
            )
            return
        for index in indices:
            value, new = value[index], self.recorder.item_node(new, index)
        operators.bind_item(self.recorder, symbol, to_size(value), new)

    def _answer(self, node: torch.fx.Node, old: Any) -> Any:
        """The value of a node whose operands are laid out otherwise than they were."""
        value = self._answered(node, old)
        self._check_fit(node, old, value)
        self._check_views(node, old, value)
        self._note(node, old, value)
        return value

    def _check_views(self, node: torch.fx.Node, old: Any, new: Any) -> None:
        """A view may become a copy, or a copy a view, only if nobody writes the memory later."""
        if isinstance(old, (list, tuple)):
            for one, other in zip(old, new, strict=True):
                self._check_views(node, one, other)
            return
        operands = node.all_input_nodes if isinstance(old, FakeTensor) else []
        for operand in operands:
            was_view = any(s is old.storage_ for s in storages(operand.meta.get("val")))
            is_view = any(s is new.storage_ for s in storages(self.values[operand]))
            if was_view is not is_view:
                groups = self.memory.groups(node) | self.memory.groups(operand)
                writer = self.memory.writer(groups, self.memory.position[node])
                if writer is not None:
                    change = "view would be a copy" if was_view else "copy would be a view"
                    raise self._refuse(node, f"is written by {writer.name}, and its {change}")

    def _answered(self, node: torch.fx.Node, old: Any) -> Any:
        if node.target is operator.getitem:
            source, index = node.args
            return self.values[source][index]  # type: ignore[index]
        if node.target in _COUNT_IN_MEMORY:
            raise self._refuse(node, "counts in the memory of its operand")
        if not any(storages(old)):
            return self.carry(old)
        if not isinstance(node.target, torch._ops.OpOverload):
            raise self._refuse(node, "has a subgraph, and cannot be answered anew")
        self.env.plan(list(node.meta.get("unbacked_bindings", {})))
        args, kwargs = self._arguments((node.args, node.kwargs))
        try:
            value = self.answer(node.target, tuple(args), kwargs)
        except Exception as e:
            raise self._refuse(node, "does not work on the new layout") from e
        self.recorder.flush_asserts()
        self.env.take_fresh_unbacked()
        return value

    def answer(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What an operator returns, by its shape rule; nothing is recorded."""
        with (
            torch_private.ambient_modes_off(),
            torch_private.below_autograd(),
            torch.set_grad_enabled(self._grad),
        ):
            return self.recorder.fake_mode.run(target, args, kwargs)

    def _arguments(self, value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            return self.values[value]
        if isinstance(value, (list, tuple)):
            return [self._arguments(v) for v in value]
        if isinstance(value, dict):
            return {k: self._arguments(v) for k, v in value.items()}
        return value

    @staticmethod
    def _refuse(node: torch.fx.Node, what: str) -> NotSupported:
        return NotSupported(
            f"The node {node.name} ({node.target}) {what}.",
            why="a value that it uses was replaced by one with other strides or in other memory",
            hints=["return a value laid out as the old one"],
        )

    # -- comparing --------------------------------------------------------------------------------

    def _check_fit(self, node: torch.fx.Node, old: Any, new: Any) -> None:
        """Sizes, dtype and device must be as they were.

        Raises:
            NotSupported: they are not; names the node and both values.
        """
        if isinstance(old, (list, tuple)):
            for one, other in zip(old, new, strict=True):
                self._check_fit(node, one, other)
        elif isinstance(old, FakeTensor) and not self.fits(old, new):
            names = self.program.dim_names
            raise NotSupported(
                f"The node {node.name} was {value_text(old, names)} on {old.device} and would be "
                f"{value_text(new, names)} on {new.device}.",
                why="whoever uses the value was captured for the old shape, dtype and device",
                hints=["cast or reshape the result to those of the old value"],
            )

    def fits(self, old: FakeTensor, new: Any) -> bool:
        """Whether users of ``old`` can use ``new``: same sizes, dtype and device."""
        return (
            isinstance(new, FakeTensor)
            and (old.dtype, old.device) == (new.dtype, new.device)
            and self._equal(old.sizes, new.sizes)
        )

    def _equal(self, a: Sequence[Any], b: Sequence[Any]) -> bool:
        known = self.recorder.fake_mode.ctx.known
        return len(a) == len(b) and all(
            m is n or m == n or known(eq(m, n)) is True for m, n in zip(a, b, strict=True)
        )

    def _note(self, node: torch.fx.Node, old: Any, new: Any) -> None:
        """Remember whether the value of ``node`` differs in its layout or its memory."""
        if isinstance(old, (list, tuple)):
            for one, other in zip(old, new, strict=True):
                self._note(node, one, other)
        elif isinstance(old, FakeTensor):
            storage = self._storages.get(id(old.storage_))
            is_known = id(new.storage_) in self._groups or self.state.holds(new.storage_)
            if storage is None and not is_known:
                storage = new.storage_
                storage.written = max(storage.written, old.storage_.written)
                self._note_storage(old.storage_, storage)
            same = (
                storage is new.storage_
                and old.requires_grad == new.requires_grad
                and self._equal((*old.strides, old.offset), (*new.strides, new.offset))
            )
            if same:
                self._carried[id(old)] = new
            else:
                self._differing.add(node)

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
        except StillframeError:
            raise
        except Exception as e:
            refusal = effects.needs_data(e)
            if refusal is None:
                raise
            raise refusal from e
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
                forbid_gradients(graph)
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
            if (s.arg.name if _is_user(s) else s.target) in targets
        }
        return {new for old, new in self.placeholders.items() if old.name in names}

    def _apart(self, node: torch.fx.Node, changed: Set[torch.fx.Node]) -> torch.fx.Node:
        """``node``, or a copy of it if it shows memory that is written back to."""
        if self.program.dialect == TRAINING or not may_show(node, changed):
            return node
        copied = self.recorder.create(aten.clone.default, (node,), {})
        copied.meta["val"] = node.meta["val"]
        return copied

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
            if _is_user(spec):
                user[new.name] = value
            elif isinstance(value, FakeTensor):
                state[new.name] = value
        with torch.set_grad_enabled(self._grad):
            asked = assumptions(self.recorder.reads.found.values(), user, state)
        added = [a for a in asked if (a.about, a.what) not in known]
        return [*program.assumptions, *added]


def _is_user(spec: InputSpec) -> bool:
    return spec.kind is InputKind.USER_INPUT


def _follows_gradients(graph: torch.fx.Graph) -> bool:
    """Whether grad mode was enabled at the beginning, as far as the metadata can tell."""
    kinds: dict[str, list[bool]] = {"placeholder": [], "call_function": []}
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, FakeTensor) and node.op in kinds:
            kinds[node.op].append(value.requires_grad)
    return any(kinds["call_function"]) or not any(kinds["placeholder"])


def _refuse_kinds(program: ExportedProgram) -> None:
    signature = program.graph_signature
    if any(s.kind in _JOINT for s in signature.output_specs):
        raise NotSupported(
            "A joint graph cannot be edited.",
            why="the gradients in it are those of the forward that is there",
            hints=["edit the program first, then call joint()"],
        )
    for spec in signature.input_specs:
        if spec.kind not in _INPUTS:
            raise NotSupported(f"Programs with {spec.kind.name} inputs cannot be edited.")
