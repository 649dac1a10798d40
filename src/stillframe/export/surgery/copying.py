"""GraphCopy: a program's graph, copied node by node into a new one.

A node that is copied keeps its name, its operands and its metadata, which is carried into an
environment that knows all that the program knows of its symbols. If a value comes out with other
strides or in other memory than before, the nodes after it are answered by the shape rules again,
until nothing differs any more. Sizes and dtypes may not change.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence, Set
from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import NotSupported
from stillframe.export.decompose import environment_of
from stillframe.export.door import Door
from stillframe.export.listing import value_text
from stillframe.export.program import CORE, TRAINING, ExportedProgram
from stillframe.export.signature import (
    InputKind,
    InputSpec,
    OutputKind,
)
from stillframe.export.subgraphs import may_show
from stillframe.export.surgery.memory import Memory, storages
from stillframe.export.surgery.recorders import EditRecorder, FunctionalEditRecorder
from stillframe.export.surgery.state import BroughtState
from stillframe.fake.tensor import FakeStorage, FakeTensor
from stillframe.shapes.continued import ContinuedEnv
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr, eq
from stillframe.trace import operators
from stillframe.trace.decompositions import Decompositions, default_table

aten = torch.ops.aten

#: Operators whose results are other values, or other numbers, where an operand is laid out anew.
_COUNT_IN_MEMORY = frozenset(
    {
        aten.as_strided.default, aten.as_strided_.default, aten.as_strided_copy.default,
        aten.as_strided_scatter.default, aten._reshape_alias.default,
        aten._reshape_alias_copy.default, aten.sym_stride.int, aten.sym_storage_offset.default,
    }
)  # fmt: skip

_INPUTS = (
    InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR, InputKind.USER_INPUT,
)  # fmt: skip
_JOINT = (OutputKind.LOSS_OUTPUT, OutputKind.GRADIENT_TO_PARAMETER)


class GraphCopy:
    """One copy of the graph of one program.

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
        user = [self.values[n] for n, s in zip(old, specs, strict=True) if is_user(s)]
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
        made.constant = val.constant
        made.symbolic_value = None if val.relies_on else val.symbolic_value
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

    def _apart(self, node: torch.fx.Node, changed: Set[torch.fx.Node]) -> torch.fx.Node:
        """``node``, or a copy of it if it shows memory that is written back to."""
        if self.program.dialect == TRAINING or not may_show(node, changed):
            return node
        copied = self.recorder.create(aten.clone.default, (node,), {})
        copied.meta["val"] = node.meta["val"]
        return copied


def is_user(spec: InputSpec) -> bool:
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
