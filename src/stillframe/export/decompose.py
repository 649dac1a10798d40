"""``run_decompositions``: a program in functional form, its operators taken apart.

The graph of the program is run once more, node by node, on fakes made from its placeholders, under
a :class:`~stillframe.trace.functional.FunctionalRecorder`. Sizes are the symbols of the program,
and what is known of them stays as it was. In the end the inputs and buffers that were written get
outputs of their own, which the program's module copies back.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe import torch_private
from stillframe.errors import InvalidInput, NotSupported
from stillframe.export import passes, subgraphs
from stillframe.export.door import Door
from stillframe.export.module_calls import SignatureFollower
from stillframe.export.naming import Names
from stillframe.export.program import CORE, FUNCTIONAL, ExportedProgram
from stillframe.export.signature import (
    ConstantArgument,
    CustomObjArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from stillframe.export.state import memory_of
from stillframe.export.tokens import TokenThread, has_ordered_effect
from stillframe.fake.tensor import FakeStorage, FakeTensor
from stillframe.shapes.continued import ContinuedEnv
from stillframe.shapes.env import ShapeEnv, to_size
from stillframe.symbolic import Contradiction, Expr
from stillframe.trace.autograd_functions import OPERATOR
from stillframe.trace.decompositions import Decompositions, default_table, is_core
from stillframe.trace.functional import FunctionalRecorder
from stillframe.trace.recorder import new_placeholder

aten = torch.ops.aten

_STATE = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
_WRITE_BACK = {
    InputKind.PARAMETER: OutputKind.PARAMETER_MUTATION,
    InputKind.BUFFER: OutputKind.BUFFER_MUTATION,
    InputKind.USER_INPUT: OutputKind.USER_INPUT_MUTATION,
}


def run_decompositions(program: ExportedProgram, table: Any = None) -> ExportedProgram:
    """The work behind :meth:`ExportedProgram.run_decompositions`."""
    entries, dialect = table_in_use(table)
    return Rerun(program, entries).run(dialect)


def table_in_use(table: Any) -> tuple[Decompositions, str]:
    """A user's table, or the default one for None, and the dialect that it leads to."""
    if table is None:
        return default_table(), CORE
    return Decompositions(_checked(table)), FUNCTIONAL


def _refuse_sparse(node: torch.fx.Node) -> None:
    """What operators on sparse tensors are taken apart into is not known."""
    leaves = pytree.tree_leaves(node.meta.get("val"))
    if any(isinstance(v, FakeTensor) and v.sparse is not None for v in leaves):
        raise NotSupported(
            f"{node.name} is a sparse tensor, and programs with such cannot be taken apart yet.",
            hints=["run the program as it is: program.module()"],
        )


def _checked(table: Any) -> Mapping[Any, Any]:
    if not isinstance(table, Mapping):
        raise InvalidInput(
            f"The table must be a dict of operators, got {type(table).__name__}.",
            hints=["table = stillframe.default_decompositions()"],
        )
    for op, entry in table.items():
        if not isinstance(op, torch._ops.OpOverload):
            raise InvalidInput(
                f"The table has the key {op!r}, which is no operator overload.",
                hints=["use an overload, such as torch.ops.aten.linear.default"],
            )
        if not callable(entry):
            raise InvalidInput(f"The table's entry for {op} is no function: {entry!r}.")
    return table


class Rerun:
    """One run over the graph of a program, which gives a functional program."""

    recorder_class: type[FunctionalRecorder] = FunctionalRecorder

    def __init__(self, program: ExportedProgram, table: Decompositions) -> None:
        self.program = program
        self.env = ContinuedEnv(environment_of(program.graph))
        self.recorder = self.recorder_class(self.env, table, self._lift)
        self.owner: torch.nn.Module = program.graph_module  # of the graph that is being run
        self.values: dict[torch.fx.Node, Any] = {}
        self.input_specs: list[InputSpec] = []
        self.constants: dict[str, Any] = dict(program.constants)
        self.inputs: list[tuple[InputSpec, torch.fx.Node, Any]] = []
        self.follows_gradients = any(
            isinstance(n.meta["val"], FakeTensor) and n.meta["val"].requires_grad
            for n in program.graph.nodes
        )
        self.names = Names()
        self.tokens: TokenThread | None = None
        self.calls = SignatureFollower(program.module_call_graph, program.graph, self._node_now)

    def run(self, dialect: str) -> ExportedProgram:
        """The whole of it, from placeholders to the new program."""
        self._make_inputs()
        with (
            torch_private.ambient_modes_off(),
            torch_private.autocast_off(),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            self._run_nodes()
        if self.recorder.needs_layout:
            self._check_layouts()
        output = next(reversed(self.program.graph.nodes))
        specs = self._make_output(output)
        graph = self.recorder.graph
        if self.recorder.loses_gradients:
            forbid_gradients(graph, self.recorder.subgraphs)
        self.recorder.finish()
        for inner in (*self.recorder.subgraphs, graph):
            passes.run(inner)
        module = torch_private.lazy_graph_module(graph, self.recorder.root)
        notes = [*self.program.notes, *self.calls.notes()]
        for op in _left_whole(module) if dialect == CORE else ():
            dialect = FUNCTIONAL
            why = self.recorder.left_whole.get(op, "its decomposition declines")
            notes.append(f"{op} is no core operator and stays whole: {why}")
        return self.program._replaced(
            graph_module=module,
            graph_signature=ExportGraphSignature(self.input_specs, specs),
            constants=self.constants,
            module_call_graph=self.calls.entries(),
            dialect=dialect,
            notes=notes,
        )

    def _run_nodes(self) -> None:
        self.run_graph(self.program.graph)

    def run_graph(self, graph: torch.fx.Graph) -> None:
        """Record what the operators of a graph do; its placeholders have values."""
        outermost = graph is self.program.graph
        for node in graph.nodes:
            _refuse_sparse(node)
            if node.op != "call_function":
                continue
            if outermost:
                self.calls.before(node)
            with self.recorder.run_of(node):
                self.values[node] = self._value_of(node)
                if outermost:
                    self.calls.after(node)
        self.recorder.flush_asserts()

    @contextlib.contextmanager
    def inside(self, module: torch.nn.Module) -> Iterator[None]:
        """Graphs that are run inside have their subgraphs on ``module``."""
        old, self.owner = self.owner, module
        try:
            yield
        finally:
            self.owner = old

    # -- inputs ---------------------------------------------------------------------------------

    def _make_inputs(self) -> None:
        nodes = [n for n in self.program.graph.nodes if n.op == "placeholder"]
        for node in nodes:
            _refuse_sparse(node)
        specs = self.program.graph_signature.input_specs
        self.names.claim_all([n.name for n in nodes])
        if any(map(has_ordered_effect, self.program.graph.nodes)):
            self.tokens = TokenThread(self.recorder, self.names)
            self.input_specs.append(self.tokens.input_spec)
        ties: dict[int | None, Any] = {}
        for node, spec in zip(nodes, specs, strict=True):
            if spec.kind not in (*_STATE, InputKind.USER_INPUT, InputKind.CUSTOM_OBJ):
                raise NotSupported(f"Programs with {spec.kind.name} inputs are not taken apart.")
            val = node.meta["val"]
            if isinstance(val, CustomObjArgument):
                self._object_input(node, spec)
                continue
            state = isinstance(val, FakeTensor) and spec.kind in _STATE
            tie = id(val.storage_) if state else None
            if tie in ties:  # two names of one tensor: the first is the one that is used
                value = ties[tie]
                new = new_placeholder(self.recorder.graph, node.name)
                new.meta["val"] = value
            else:
                value = self._input_value(val, spec.kind)
                new = self.recorder.placeholder(node.name, value)
                self.inputs.append((spec, new, value))
            if tie is not None:
                ties[tie] = value
            self.values[node] = value
            self.input_specs.append(spec)
        for (leaf, dim), solution in Door.of(self.program).solved.items():
            size = self._user_values()[leaf].sizes[dim]
            self.recorder.symbols.bind_derived(
                solution.symbol, size, solution.scale, solution.offset
            )

    def _object_input(self, node: torch.fx.Node, spec: InputSpec) -> None:
        """A script object is its placeholder: nothing happens to it but calls with a token."""
        new = new_placeholder(self.recorder.graph, node.name)
        new.meta["val"] = node.meta["val"]
        self.values[node] = new
        self.input_specs.append(spec)
        self.inputs.append((spec, new, None))

    def _user_values(self) -> list[Any]:
        return [v for spec, _, v in self.inputs if spec.kind is InputKind.USER_INPUT]

    def _input_value(self, val: Any, kind: InputKind) -> Any:
        if isinstance(val, FakeTensor):
            storage = FakeStorage(given=kind is InputKind.USER_INPUT)
            made = FakeTensor.make(
                self.env, val.sizes, val.strides, val.offset, val.dtype, val.device,
                val.requires_grad, storage,
            )  # fmt: skip
            if getattr(val, "_is_param", False):
                made._is_param = True
            return made
        return self._symbolic(val)

    def _symbolic(self, val: Any) -> Any:
        """A number of the program; symbolic ones in the new environment."""
        size = to_size(val)
        return self.env.wrap(size) if isinstance(size, Expr) else val

    def _lift(self, real: torch.Tensor, fake: FakeTensor) -> torch.fx.Node:
        """A tensor that a decomposition brings along becomes a constant of the program."""
        number = sum(1 for fqn in self.constants if "lifted_tensor_" in fqn)
        fqn = f"lifted_tensor_{number}"
        while fqn in self.constants or fqn in self.program.state_dict:
            number += 1
            fqn = f"lifted_tensor_{number}"
        name = self.names.lifted(InputKind.CONSTANT_TENSOR, fqn)
        spec = InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(name), fqn, None)
        at = next(
            (i for i, s in enumerate(self.input_specs) if s.kind is InputKind.USER_INPUT),
            len(self.input_specs),
        )
        graph = self.recorder.graph
        nodes = list(graph.nodes)
        place = nodes[at] if at < len(nodes) else None
        if place is None:
            node = new_placeholder(graph, name)
        else:
            with graph.inserting_before(place):
                node = new_placeholder(graph, name)
        node.meta["val"] = fake
        self.input_specs.insert(at, spec)
        self.constants[fqn] = real.detach().clone()
        self.inputs.insert(0, (spec, node, fake))
        return node

    # -- nodes ------------------------------------------------------------------------------------

    def _node_now(self, node: torch.fx.Node) -> Any:
        """The node of the new graph that computes what ``node`` stands for at present."""
        value = self.values[node]
        return value if isinstance(value, torch.fx.Node) else self.recorder.operand(value)

    def _value_of(self, node: torch.fx.Node) -> Any:
        target, val = node.target, node.meta["val"]
        if has_ordered_effect(node):
            if self.tokens is None or node.graph is not self.program.graph:
                raise NotSupported(
                    f"{node.name} has a side effect ({target}) inside of another operator's "
                    "function, where a functional program cannot order it."
                )
            args = tuple(self.argument(a) for a in node.args)
            kwargs = {k: self.argument(v) for k, v in node.kwargs.items()}
            return self.tokens.record(node, args, kwargs)
        if isinstance(target, torch._ops.OpOverload):
            return self._run_operator(node, target)
        if isinstance(target, torch._ops.HigherOrderOperator):
            return self._run_higher_order(node)
        if target is operator.getitem:
            source, index = node.args
            return self.values[source][index]  # type: ignore[index]
        if target is torch_private.set_grad_enabled:
            return self._switch_gradients(node)
        size = to_size(val)
        if isinstance(size, Expr) and not self._uses_nodes(node):
            return self.env.wrap(size)
        return self._copy(node)

    def _uses_nodes(self, node: torch.fx.Node) -> bool:
        return any(isinstance(self.values.get(n), torch.fx.Node) for n in node.all_input_nodes)

    def _copy(self, node: torch.fx.Node) -> torch.fx.Node:
        """A node that no operator is in, such as the question for autocast, as it is."""
        args, kwargs = torch.fx.node.map_arg(
            (node.args, node.kwargs), lambda n: self.recorder.operand(self.values[n])
        )
        new = self.recorder.create(node.target, args, kwargs)
        new.meta["val"] = node.meta["val"]
        return new

    def _run_operator(self, node: torch.fx.Node, target: Any) -> Any:
        val = node.meta["val"]
        bindings = node.meta.get("unbacked_bindings", {})
        size = to_size(val)
        if isinstance(size, Expr) and not bindings:
            return self.env.wrap(size)
        if target is aten._assert_scalar.default:
            return self._assert(node)
        self.env.plan(list(bindings))
        args = tuple(self.argument(a) for a in node.args)
        kwargs = {k: self.argument(v) for k, v in node.kwargs.items()}
        result = self._call(target, args, kwargs)
        if bindings:
            self._check_symbols(node, result)
        return result

    def _run_higher_order(self, node: torch.fx.Node) -> Any:
        inline = node.target is OPERATOR and not self.follows_gradients
        if inline and not node.meta.get("unbacked_bindings"):
            return subgraphs.run_inline(self, node)
        return subgraphs.run_operator(self, node)

    def _call(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.recorder.record(target, args, kwargs)

    def _check_symbols(self, node: torch.fx.Node, result: Any) -> None:
        """The symbols of data must be those of the program: everything after them names them."""
        if _symbols_of(result) != _symbols_of(node.meta["val"]):
            raise NotSupported(
                f"What {node.target} reads from the data cannot be followed into its parts.",
                hints=[
                    "keep it whole: table = stillframe.default_decompositions(); "
                    f"table.pop(torch.ops.{node.target})"
                ],
            )

    def argument(self, value: Any) -> Any:
        """The value of a node, also in containers; constants as they are."""
        if isinstance(value, torch.fx.Node):
            return self.values[value]
        if isinstance(value, (list, tuple)):
            return [self.argument(v) for v in value]
        return value

    def _assert(self, node: torch.fx.Node) -> None:
        condition, message = node.args
        value = self.argument(condition)
        if isinstance(value, torch.fx.Node):
            self._copy(node)
            return
        expr = to_size(value)
        self.recorder.flush_asserts()
        if isinstance(expr, Expr):
            try:
                self.env.facts.assume(expr)
            except Contradiction:
                pass  # the program raises here, whatever comes after
        operand = self.recorder.operand(value)
        check = self.recorder.create(aten._assert_scalar.default, (operand, message), {})
        check.meta["val"] = None

    def _switch_gradients(self, node: torch.fx.Node) -> None:
        """Grad mode matters to those who train the program; without gradients it says nothing."""
        torch.set_grad_enabled(bool(node.args[0]))  # what the program asks for is on in this run
        if self.follows_gradients:
            mode = self.argument(node.args[0])
            switch = self.recorder.create(torch_private.set_grad_enabled, (mode,), {})
            switch.meta["val"] = None

    def _check_layouts(self) -> None:
        """The inputs must be laid out as the example's; checked before anything is written back."""
        for spec, node, value in self.inputs:
            if spec.kind is InputKind.USER_INPUT and isinstance(value, FakeTensor):
                strides = self.recorder.operand(self.env.wrap_sizes(value.strides))
                check = self.recorder.create(
                    aten._assert_tensor_metadata.default, (node, None, strides), {}
                )
                check.meta["val"] = None

    # -- outputs ----------------------------------------------------------------------------------

    def _make_output(self, old: torch.fx.Node) -> list[OutputSpec]:
        written = [(s, n, v) for s, n, v in self.inputs if self._is_written(n, v)]
        self._refuse_shared_state(written)
        recorder = self.recorder
        for _, _, value in self.inputs:
            if isinstance(value, FakeTensor):
                recorder.check_memory(value)
        specs: list[OutputSpec] = []
        operands: list[Any] = []
        if self.tokens is not None:
            operands.append(self.tokens.token)
            specs.append(self.tokens.output_spec())
        changed = {n for _, n, _ in written}
        for source, _, tensor in written:
            node = self._apart(recorder.operand(tensor), tensor, changed)
            operands.append(node)
            specs.append(self._write_back(source, node))
        old_specs = self.program.graph_signature.output_specs
        for value, spec in zip(outputs_of(old), old_specs, strict=True):
            operand, new = self._output(value, spec, changed)
            operands.append(operand)
            specs.append(new)
        self._finish_output(operands)
        return specs

    def _output(
        self, value: Any, spec: OutputSpec, changed: Set[torch.fx.Node] = frozenset()
    ) -> tuple[Any, OutputSpec]:
        """One output of the old graph in the new one."""
        if not isinstance(value, torch.fx.Node):
            return value, spec
        new = self.argument(value)
        node = self.recorder.operand(new)
        if isinstance(new, FakeTensor):
            node = self._apart(node, new, changed)
        return node, replace(spec, arg=_named(spec.arg, node))

    def _finish_output(self, operands: list[Any]) -> None:
        output = self.recorder.graph.output(tuple(operands))
        output.meta["val"] = tuple(
            o.meta["val"] if isinstance(o, torch.fx.Node) else o for o in operands
        )

    def _is_written(self, node: torch.fx.Node, value: Any) -> bool:
        return isinstance(value, FakeTensor) and value.fx_node is not node

    def _write_back(self, spec: InputSpec, node: torch.fx.Node) -> OutputSpec:
        argument = TensorArgument(node.name)
        if spec.kind is InputKind.USER_INPUT:
            return OutputSpec(OutputKind.USER_INPUT_MUTATION, argument, spec.arg.name)
        if spec.kind is InputKind.CONSTANT_TENSOR:
            spec = self._as_buffer(spec)
        return OutputSpec(_WRITE_BACK[spec.kind], argument, spec.target)

    def _as_buffer(self, spec: InputSpec) -> InputSpec:
        """A tensor attribute that is written is a buffer that the state_dict leaves out."""
        assert spec.target is not None
        name = self.names.lifted(InputKind.BUFFER, spec.target)
        node = next(n for n in self.recorder.graph.nodes if n.name == spec.arg.name)
        node.name = node.target = name
        new = InputSpec(InputKind.BUFFER, TensorArgument(name), spec.target, False)
        self.input_specs[self.input_specs.index(spec)] = new
        return new

    def _apart(
        self, node: torch.fx.Node, value: FakeTensor, changed: Set[torch.fx.Node]
    ) -> torch.fx.Node:
        """``node``, or a copy of it if it shows memory that is written back to."""
        if not subgraphs.may_show(node, changed):
            return node
        copy: torch.fx.Node = self.recorder.create(aten.clone.default, (node,), {})
        copy.meta["val"] = value
        return copy

    def _refuse_shared_state(self, written: list[Any]) -> None:
        """Two names for parts of one memory: what is copied back to one shows in the other."""
        named = {**self.program.state_dict, **self.program.constants}
        memory: dict[int, set[int]] = {}
        names: dict[int, list[str]] = {}
        for spec, node, _ in self.inputs:
            real = named.get(str(spec.target)) if spec.kind in _STATE else None
            if isinstance(real, torch.Tensor) and real.layout is torch.strided:
                key = memory_of(real)
                memory.setdefault(key, set()).add(id(node))
                names.setdefault(key, []).append(str(spec.target))
        for spec, node, _ in written:
            for key, nodes in memory.items():
                if id(node) in nodes and len(nodes) > 1:
                    raise NotSupported(
                        f"The program writes {spec.target}, which shares memory with others: "
                        f"{', '.join(names[key])}.",
                        why="a functional program copies one value back for each tensor",
                        hints=["give them memory of their own"],
                    )


def environment_of(graph: torch.fx.Graph) -> ShapeEnv:
    """The environment of a graph's metadata; one without symbols if it has no tensors."""
    pending: list[Any] = [n.meta.get("val") for n in graph.nodes]
    while pending:
        val = pending.pop()
        if isinstance(val, FakeTensor):
            return val.env
        if isinstance(val, (list, tuple)):
            pending.extend(val)
    return ShapeEnv()


def _left_whole(module: torch.fx.GraphModule) -> list[Any]:
    """Operators that the default table takes apart and that are there all the same."""
    nodes = subgraphs.nodes_of(module)
    targets = {n.target for n in nodes if isinstance(n.target, torch._ops.OpOverload)}
    left = [t for t in targets if not is_core(t) and default_table().get(t) is not None]
    return sorted(left, key=str)


def _symbols_of(value: Any) -> set[Expr]:
    if isinstance(value, FakeTensor):
        sizes = [s for s in value.sizes if isinstance(s, Expr)]
        return {symbol for s in sizes for symbol in s.free_symbols}
    if isinstance(value, (list, tuple)):
        return {symbol for v in value for symbol in _symbols_of(v)}
    size = to_size(value)
    return set(size.free_symbols) if isinstance(size, Expr) else set()


def _named(arg: Any, node: Any) -> Any:
    if isinstance(node, torch.fx.Node):
        return replace(arg, name=node.name)
    return ConstantArgument("", node)


def outputs_of(output: torch.fx.Node) -> list[Any]:
    """What the output node of a program returns."""
    return list(output.args[0])  # type: ignore[arg-type]


def forbid_gradients(graph: torch.fx.Graph, inner: Sequence[torch.fx.Graph]) -> None:
    """Run the whole program without grad mode, so that nobody can ask for a gradient of it."""
    for each in (graph, *inner):
        for node in list(each.nodes):
            if node.target is torch_private.set_grad_enabled:
                each.erase_node(node)
    first = next(n for n in graph.nodes if n.op != "placeholder")
    with graph.inserting_before(first):
        switch = graph.call_function(torch_private.set_grad_enabled, (False,))
    switch.meta["val"] = None
