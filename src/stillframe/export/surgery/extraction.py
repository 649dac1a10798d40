"""A part of a program as a program of its own: what was recorded inside one call of a module.

The values that the call takes from outside are the inputs, those that others use are the outputs.
The new program may only rely on what its own inputs tell and its own calls check. Where the whole
program knew more (a size that shows in no input of the part, a relation to one, a range of a number
read from data), the nodes are answered by the shape rules once more, under what remains known.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from operator import getitem
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe import torch_private
from stillframe.errors import NotSupported
from stillframe.export import passes
from stillframe.export.assumptions import Assumption
from stillframe.export.call_spec import (
    POSITIONAL_OR_KEYWORD,
    CallParameter,
    CallSpec,
    GivenArgument,
)
from stillframe.export.program import ExportedProgram
from stillframe.export.signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    ModuleCallEntry,
    ModuleCallSignature,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from stillframe.export.surgery.copying import GraphCopy
from stillframe.export.surgery.memory import written_storages, written_tensor
from stillframe.export.surgery.parts import (
    SYMBOLIC_ARGUMENTS,
    completed,
    nodes_of_call,
    returned,
    used_from_outside,
)
from stillframe.fake.tensor import FakeStorage, FakeTensor
from stillframe.shapes.env import to_size
from stillframe.symbolic import Contradiction, Expr, Facts, Range, evaluate, unwrap

aten = torch.ops.aten

_LEAF = pytree.tree_structure(0)


def extract(program: ExportedProgram, path: str, *, call: int = 0) -> ExportedProgram:
    """What ``program`` does inside one call of the module at ``path``, as a program.

    Its parameters are the values that come from outside, under the names of their nodes, in the
    order of their first use; it returns what is used outside: one tensor, or a tuple in the order
    of the nodes. State keeps its names; ranges, conditions on sizes and run-time checks are those
    that concern the part. Sizes that the inputs do not tell become dims of their own.

    Args:
        program: is not changed.
        path: of a module in the original, ``"encoder.layers.0"``.
        call: which call, from 0, if the module is called more than once. Calls that follow each
            other immediately are told apart only where the program's module stacks do.

    Returns:
        The new program, in the dialect of ``program``.

    Raises:
        InvalidInput: no module of that name was called, or not so often; names those near it.
        NotSupported: nobody uses what the part computes; or it relies on something that its inputs
            do not tell.
    """
    nodes = nodes_of_call(program, path, call)
    return _Extraction(program, nodes, path).extract()


# -- the part -------------------------------------------------------------------------------------


class _Extraction(GraphCopy):
    """One part of a program in the making.

    Args:
        part: the nodes of the call.
        path: of the module.
    """

    def __init__(self, program: ExportedProgram, part: list[torch.fx.Node], path: str) -> None:
        self.part = completed(part, program.graph)
        self.inside = set(self.part)
        self.path = path
        specs = program.graph_signature.input_specs
        placeholders = [n for n in program.graph.nodes if n.op == "placeholder"]
        self.state_specs = {
            n: s for n, s in zip(placeholders, specs, strict=True) if s.target is not None
        }
        self.returned = returned(program, self.inside, self.state_specs)
        operands = used_from_outside(self.part, self.inside)
        self.written_state = {
            n: s for n in operands if (s := written_tensor(n)) in self.state_specs
        }
        self.outside = list(dict.fromkeys(self.written_state.get(n, n) for n in operands))
        self.arguments: list[torch.fx.Node] = []
        self.answers_anew = False
        self._sizes: dict[Expr, Expr] = {}  # a size in the whole -> what it is called here
        self._made: set[Expr] = set()
        super().__init__(program)

    def extract(self) -> ExportedProgram:
        """The program of the part."""
        if not self.returned:
            raise NotSupported(
                f"Nobody uses what {self.path} computes, so there is nothing to return."
            )
        self._check_between()
        if not self._grad_at_start():
            switch = self.recorder.create(torch_private.set_grad_enabled, (False,), {})
            switch.meta["val"] = None
        for node in self.part:
            self._count_writes(node)
            self.copy(node)
            if self.answers_anew and node.target is aten._assert_scalar.default:
                self._learn(node)
        return self._program()

    def _check_between(self) -> None:
        """Nothing else may write what the part reads while it runs."""
        place = self.memory.position
        groups = {g for n in (*self.part, *self.outside) for g in self.memory.groups(n)}
        first, last = place[self.part[0]], place[self.part[-1]]
        writer = self.memory.writer(groups, first, last, self.inside)
        if writer is not None:
            raise NotSupported(f"{writer.name}, outside of {self.path}, writes what it uses.")

    def _grad_at_start(self) -> bool:
        self._grad = True
        for node in self.graph.nodes:
            if node is self.part[0]:
                break
            if node.target is torch_private.set_grad_enabled:
                self._grad = bool(node.args[0])
        return self._grad

    def _count_writes(self, node: torch.fx.Node) -> None:
        """The memory of the part counts the writes of the part only."""
        for storage in written_storages(node):
            self._storages[id(storage)].written += 1

    def _learn(self, node: torch.fx.Node) -> None:
        """What a check of the part found to be true holds after it."""
        condition = to_size(self._arguments(node.args[0]))
        if isinstance(condition, Expr):
            try:
                self.env.facts.assume(condition)
            except Contradiction:
                pass  # the program raises here, whatever comes after

    # -- inputs -----------------------------------------------------------------------------------

    def _make_placeholders(self) -> None:
        needed = {n for n in self.outside if n in self.state_specs}
        needed |= {n for n in self.state_specs if self.state_specs[n].target in self._targets()}
        for node, spec in self.state_specs.items():
            if node in needed:
                self._place(node, self.carry(node.meta["val"]), spec)
        for node, state in self.written_state.items():
            self.nodes[node], self.values[node] = self.nodes[state], self.values[state]
        tensors = [
            n for n in self.outside
            if n not in self.state_specs and isinstance(n.meta.get("val"), FakeTensor)
        ]  # fmt: skip
        numbers = self._choose_symbols(tensors)
        for node in self.outside:
            if node in tensors:
                spec = InputSpec(InputKind.USER_INPUT, TensorArgument(node.name), None)
                self._place(node, self._resized(node.meta["val"]), spec)
                self.arguments.append(node)
            elif node not in self.nodes:
                self._place_number(node, is_input=node in numbers)
        self._bind_derived()

    def _targets(self) -> set[str | None]:
        """State that the part writes back."""
        return {spec.target for _, spec in self.returned}

    def _place(self, node: torch.fx.Node, value: Any, spec: InputSpec) -> None:
        for storage in _storages_of(value):
            storage.written, storage.given = 0, spec.target is None
        again = isinstance(value, FakeTensor) and value.fx_node is not None
        new = self.state.placeholder(node.name, value, spec, again=again)
        self.nodes[node], self.values[node] = new, value

    def _place_number(self, node: torch.fx.Node, is_input: bool) -> None:
        """A number from outside: computed from the sizes of the inputs, or an input itself."""
        size = to_size(node.meta.get("val"))
        if not isinstance(size, Expr):
            if node.op != "get_attr" and size is not None:
                self.values[node] = size
                return
            raise NotSupported(f"{self.path} uses {node.name}, which no input can be.")
        value = self.env.wrap(self._sizes[size])
        if not is_input:
            self.values[node] = value
            return
        argument = SYMBOLIC_ARGUMENTS[size.sort](node.name)
        self._place(node, value, InputSpec(InputKind.USER_INPUT, argument, None))
        self.arguments.append(node)

    # -- symbols ----------------------------------------------------------------------------------

    def _choose_symbols(self, tensors: list[torch.fx.Node]) -> set[torch.fx.Node]:
        """Decide what the sizes of the inputs are called; the numbers that must be inputs too."""
        simplify = self.env.facts.simplify
        sizes = dict.fromkeys(s for n in tensors for s in _sizes_of(n.meta["val"]))
        plain = {size: simplify(size) for size in sizes}
        told = {s for s in plain.values() if s.op == "symbol"}
        told |= {symbol for s in plain.values() if (symbol := _solved(s, told)) is not None}
        for size, simple in plain.items():
            self._sizes[size] = simple if simple.free_symbols <= told else self._new_symbol(size)
        numbers = set()
        for node in self.outside:
            size = to_size(node.meta.get("val"))
            if not isinstance(size, Expr) or size in self._sizes:
                continue
            simple = simplify(size)
            if not simple.free_symbols <= told:
                numbers.add(node)
                if simple.op != "symbol":
                    simple = self._new_symbol(size)
                told.add(simple)
            self._sizes[size] = simple
        self.told = told | self._made
        self._limit_facts()
        return numbers

    def _new_symbol(self, size: Expr) -> Expr:
        if size.sort != "int":
            raise NotSupported(f"{self.path} uses the number {size}, which its inputs do not tell.")
        bounds = self.env.facts.range_of(size)
        hint = self.env.hint_of(size)
        low = 0 if bounds.lower < 0 else int(bounds.lower)
        made = self.env.new_symbol(
            f"s{len(self.env.symbols)}", low if hint is None else int(hint), bounds,
            policy="dynamic",
        )  # fmt: skip
        self._made.add(made)
        return made

    def _limit_facts(self) -> None:
        """If the whole program knows more than the inputs of the part tell, forget it."""
        told = self.told
        conditions = [g.expr for g in self.program.guards]
        conditions += [e for e in self.program.range_constraints if e.op != "symbol"]
        is_mixed = any(not c.free_symbols <= told and c.free_symbols & told for c in conditions)
        reads_data = any(self.env.is_unbacked(s) for s in told)
        if not (is_mixed or reads_data or self._made):
            return
        self.answers_anew = True
        known, facts = self.env.facts, Facts()
        for symbol in told:
            if symbol.sort == "int":
                facts.set_range(symbol, known.range_of(symbol))
        for guard in self.program.guards:
            if guard.expr.free_symbols <= told:
                facts.assume(guard.expr)
        for symbol, info in self.env.symbols.items():
            if info.policy == "unbacked" and symbol.sort == "int" and symbol not in told:
                facts.set_range(symbol, info.declared)  # as the operator that reads it says
        self.env.facts = facts

    def _bind_derived(self) -> None:
        """Symbols that show only as ``2*s + 1`` in the sizes of inputs."""
        bare = {s for n in self.arguments for s in _sizes_of(self.values[n]) if s.op == "symbol"}
        for node in self.arguments:
            for size in _sizes_of(self.values[node]):
                symbol = _solved(size, bare)
                if symbol is not None:
                    offset = int(evaluate(size, {symbol: 0}))
                    scale = int(evaluate(size, {symbol: 1})) - offset
                    self.recorder.symbols.bind_derived(symbol, size, scale, offset)

    def _resized(self, val: FakeTensor) -> FakeTensor:
        """The input for a value, with its sizes as they are called here."""
        sizes = [self._sizes[s] if isinstance(s, Expr) else s for s in val.sizes]
        strides = [self._stride(s, val.sizes, sizes) for s in val.strides]
        offset = self._stride(val.offset, val.sizes, sizes)
        storage = self._storages.get(id(val.storage_))
        if storage is None:
            storage = FakeStorage()
            self._note_storage(val.storage_, storage)
        made = FakeTensor.make(
            self.env, sizes, strides, offset, val.dtype, val.device, val.requires_grad, storage
        )
        if not self._made:
            self._carried[id(val)] = made
        return made

    def _stride(self, stride: Any, old: Sequence[Any], new: Sequence[Any]) -> Any:
        """A stride, which is a product of sizes unless the value is a part of a larger one."""
        if not isinstance(stride, Expr):
            return stride
        simple = self.env.facts.simplify(stride)
        if simple.free_symbols <= self.told:
            return simple
        for count in range(1, len(old) + 1):
            for dims in itertools.combinations(range(len(old)), count):
                if math.prod(old[d] for d in dims) is stride:
                    return math.prod(new[d] for d in dims)
        raise NotSupported(
            f"An input of {self.path} is laid out with sizes that its inputs do not tell.",
            hints=["keep the dims of the whole program static, or extract a larger part"],
        )

    # -- answering anew ---------------------------------------------------------------------------

    def copy(self, node: torch.fx.Node) -> None:
        """As for every edit; where less is known than before, everything is answered anew."""
        if self.answers_anew:
            self._differing.update(node.all_input_nodes)
        super().copy(node)

    def _answered(self, node: torch.fx.Node, old: Any) -> Any:
        is_number = isinstance(to_size(old), Expr) and not node.meta.get("unbacked_bindings")
        if not self.answers_anew or not is_number or node.target is getitem:
            return super()._answered(node, old)
        args, kwargs = self._arguments((node.args, node.kwargs))
        if isinstance(node.target, torch._ops.OpOverload):
            return self.answer(node.target, tuple(args), kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def fits(self, old: FakeTensor, new: Any) -> bool:
        """Where sizes have other names, only dtype, device and the number of dims stay."""
        if not self._made:
            return super().fits(old, new)
        return isinstance(new, FakeTensor) and (
            (old.dtype, old.device, len(old.sizes)) == (new.dtype, new.device, len(new.sizes))
        )

    # -- the program ------------------------------------------------------------------------------

    def _program(self) -> ExportedProgram:
        program, recorder = self.program, self.recorder
        specs = self._make_output()
        recorder.finish()
        passes.run(recorder.graph)
        used = {s.target for s in self.state.input_specs if s.target is not None}
        call_spec = _call_spec([n.name for n in self.arguments])
        count = sum(1 for s in specs if s.kind is OutputKind.USER_OUTPUT)
        out_spec = _LEAF if count == 1 else pytree.tree_structure((0,) * count)
        return program._replaced(
            graph_module=torch_private.lazy_graph_module(recorder.graph, recorder.root),
            graph_signature=ExportGraphSignature(self.state.input_specs, specs),
            state_dict={k: program.state_dict[k] for k in program.state_dict if k in used},
            constants={k: program.constants[k] for k in program.constants if k in used},
            range_constraints=self._ranges(),
            guards=[g for g in program.guards if g.expr.free_symbols <= self.told],
            module_call_graph=self._module_calls(call_spec, out_spec),
            example_inputs=None,
            call_spec=call_spec,
            out_spec=out_spec,
            root_class=self._class_name(),
            dim_names={k: v for k, v in program.dim_names.items() if k in map(str, self.told)},
            notes=[*program.notes, f"this is {self.path} of a program of {program.root_class}"],
            verdicts=(),
            proposed_spec="",
            assumptions=self._own_assumptions(),
        )

    def _make_output(self) -> list[OutputSpec]:
        operands: list[Any] = []
        specs: list[OutputSpec] = []
        changed = {
            self.nodes[n]
            for n in self.nodes
            for _, spec in self.returned
            if n in self.state_specs and self.state_specs[n].target == spec.target
        }
        for node, spec in self.returned:
            value = self.operand(node)
            if isinstance(self.values[node], FakeTensor):
                value = self._apart(value, changed)
            operands.append(value)
            specs.append(replace(spec, arg=replace(spec.arg, name=value.name)))
        output = self.recorder.graph.output(tuple(operands))
        output.meta["val"] = tuple(o.meta["val"] for o in operands)
        return specs

    def _ranges(self) -> dict[Expr, Range]:
        known = self.env.facts
        ranges = {
            expr: bounds
            for expr, bounds in self.program.range_constraints.items()
            if expr.free_symbols <= self.told
        }
        for symbol in sorted(self.told, key=str):
            if symbol.sort == "int":
                ranges[symbol] = known.range_of(symbol)
        return ranges

    def _module_calls(self, call_spec: CallSpec, out_spec: Any) -> list[ModuleCallEntry]:
        inside = f"{self.path}."
        entries = [
            ModuleCallEntry(e.fqn)
            for e in self.program.module_call_graph
            if e.fqn == self.path or e.fqn.startswith(inside)
        ]
        signature = ModuleCallSignature([], [], call_spec.in_spec, out_spec)
        return [ModuleCallEntry("", signature), *entries]

    def _class_name(self) -> str:
        for at, name in self.part[0].meta["nn_module_stack"].values():
            if at == self.path:
                return str(name).rpartition(".")[2]
        return "Module"

    def _own_assumptions(self) -> list[Assumption]:
        """What the whole program asked of its inputs is asked of the inputs of the part."""
        found: dict[tuple[str, str], Assumption] = {}
        state = {n.name for n in self.state_specs}
        kept = {s.arg.name for s in self.state.input_specs}
        for assumption in self.program.assumptions:
            about, what = assumption.about, assumption.what
            if not about or about in state:
                if not about or about in kept:
                    found[about, what] = assumption
                continue
            for node in self.arguments:
                value = self.values[node]
                if isinstance(value, FakeTensor):
                    for asked in _questions(node.name, value, assumption):
                        found[asked.about, asked.what] = asked
        return list(found.values())


def _questions(about: str, value: FakeTensor, asked: Assumption) -> list[Assumption]:
    """A question about an input of the whole, for an input of the part."""
    if asked.what in ("requires_grad", "is_leaf"):
        return [Assumption(about, "requires_grad", value.requires_grad, asked.where)]
    return [Assumption(about, what, None, asked.where) for what in ("stride()", "storage_offset()")]


def _solved(size: Expr, told: set[Expr]) -> Expr | None:
    """The one symbol of a size that is a multiple of it and a constant, if nothing tells it."""
    unknown = [s for s in size.free_symbols if s not in told]
    if size.op == "symbol" or len(unknown) != 1 or len(size.free_symbols) != 1:
        return None
    (symbol,) = unknown
    offset = int(evaluate(size, {symbol: 0}))
    scale = int(evaluate(size, {symbol: 1})) - offset
    return symbol if scale > 0 and unwrap(symbol * scale + offset) is size else None


def _sizes_of(value: Any) -> list[Expr]:
    if isinstance(value, FakeTensor):
        return [s for s in value.sizes if isinstance(s, Expr)]
    size = to_size(value)
    return [size] if isinstance(size, Expr) else []


def _storages_of(value: Any) -> list[FakeStorage]:
    return [value.storage_] if isinstance(value, FakeTensor) else []


def _call_spec(names: list[str]) -> CallSpec:
    """The calling convention of a function with these parameters."""
    parameters = tuple(CallParameter(name, POSITIONAL_OR_KEYWORD) for name in names)
    given = tuple(GivenArgument(n, None, n, _LEAF, (n,), (n,)) for n in names)
    return CallSpec(parameters, given, len(names))
