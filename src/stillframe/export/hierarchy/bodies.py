"""One graph for each call: the nodes captured in it, and calls of the modules below.

What a body takes and gives follows from data flow, unless the call signature was kept; then the
arguments and the result are those of the user's code. State is read from the module by name where
it has one below the module. Sizes are read off the tensors that a body has, wherever these tell
them, so that a body takes no sizes that it can see for itself.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe.errors import InternalError
from stillframe.export.hierarchy.calls import Call, CallTree, is_arithmetic, is_number
from stillframe.export.hierarchy.interface import (
    Captured,
    Leaves,
    Rebuild,
    call_captured,
    is_plain,
    results_of,
)
from stillframe.export.promises import promise_of
from stillframe.export.signature import ConstantArgument, ModuleCallSignature
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr

aten = torch.ops.aten

#: Metadata of ``get_attr`` nodes that read state; those without it are subgraphs.
STATE = "reads_state"

Node = torch.fx.Node


@dataclass(eq=False)
class Body:
    """What a call runs.

    Attributes:
        call: the call.
        graph: its nodes; the last of its placeholders are ``extras``.
        index: which body of the module it is; equal calls share one.
        signature: how it is called; None where arguments and results are flat.
        takes: the flat arguments, values of the program.
        extras: further values from outside, beside the arguments.
        gives: the flat results.
        extra_gives: further values for others, beside the result.
    """

    call: Call
    graph: torch.fx.Graph
    signature: ModuleCallSignature | None = None
    index: int = 0
    takes: list[Node] = field(default_factory=list)
    extras: list[Node] = field(default_factory=list)
    gives: list[Node] = field(default_factory=list)
    extra_gives: list[Node] = field(default_factory=list)

    @property
    def is_captured(self) -> bool:
        """Whether a call of it needs something beside the arguments."""
        return bool(self.index or self.extras or self.extra_gives)


@dataclass
class Bodies:
    """The bodies of all modules; the root's is not among them.

    Attributes:
        tree: the calls.
        of_module: path -> the bodies of the module.
        reads: path -> names of state and modules that the bodies there read and call.
        flat: bodies of several flat arguments or results, whose order is that of the graph.
    """

    tree: CallTree
    of_module: dict[str, list[Body]] = field(default_factory=dict)
    reads: dict[str, set[str]] = field(default_factory=dict)
    flat: list[Body] = field(default_factory=list)
    _forms: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, body: Body) -> Body:
        """Give a body its number: that of an equal one of the module, if there is one."""
        forms = self._forms.setdefault(body.call.path, [])
        form = _form(body, self.tree)
        if form in forms:
            body.index = forms.index(form)
            return body
        body.index = len(forms)
        forms.append(form)
        self.of_module.setdefault(body.call.path, []).append(body)
        return body

    def note_read(self, path: str, name: str) -> None:
        """The body of the module at ``path`` reads or calls what is named so."""
        self.reads.setdefault(path, set()).add(name)


def make_bodies(tree: CallTree) -> tuple[torch.fx.Graph, Bodies]:
    """The graph of the root, which calls the others, and the bodies of all submodules."""
    bodies = Bodies(tree)
    root = _Builder(tree.root, bodies)
    return root.root_graph(), bodies


class _Builder:
    """Builds the graph of one call."""

    def __init__(self, call: Call, bodies: Bodies) -> None:
        self.call = call
        self.bodies = bodies
        self.tree = bodies.tree
        self.prefix = f"{call.path}." if call.path else ""
        self.graph = torch.fx.Graph()
        self.values: dict[Node, Any] = {}
        self.told: dict[Expr, tuple[Node, int]] = {}
        self.late: list[Node] = []  # sizes that had to be asked for from outside
        self._last_input: Node | None = None

    # -- the two kinds --------------------------------------------------------------------------

    def root_graph(self) -> torch.fx.Graph:
        """The graph of the whole program, with its placeholders and its output."""
        for node in self.tree.program.graph.nodes:
            if node.op == "placeholder":
                new = self._input(node)
                new.name = new.target = node.name
        self._run_items()
        output = next(reversed(self.tree.program.graph.nodes))
        self.graph.output(self._mapped(output.args[0])).meta = dict(output.meta)
        self._drop_unused()
        for node, names in self.tree.names.items():
            if self.values[node].users:
                self.bodies.note_read("", names[0])
        return self.graph

    def body(self) -> Body:
        """The body of a submodule's call."""
        call, signature = self.call, self.call.signature
        body = Body(call, self.graph, signature)
        tensors = self._tensors_from_outside()
        if signature is not None:
            body.takes = self.tree.arguments(call)
            for node in body.takes:
                self._input(node)
            body.extras = [n for n in tensors if n not in self.values]
            for node in body.extras:
                self._input(node)
        else:
            body.takes = tensors
            for node in tensors:
                self._input(node)
        self._run_items()
        given = self.tree.named(signature.outputs) if signature is not None else []
        gives = self._values_for_others(given)
        if signature is not None:
            body.gives, body.extra_gives = given, gives
            result = self._structured(signature)
            extra = tuple(self._value(n) for n in gives)
            self.graph.output((result, extra) if gives else result)
        else:
            body.gives = gives
            values = tuple(self._value(n) for n in gives)
            self.graph.output(values[0] if len(values) == 1 else values or None)
        (body.takes if signature is None else body.extras).extend(self.late)
        self._drop_unused()
        return body

    def _tensors_from_outside(self) -> list[Node]:
        """What the call uses from outside, apart from its own state, subgraphs and sizes."""
        found: dict[Node, None] = {}
        for node in self.tree.uses(self.call):
            if node.op == "get_attr" or is_number(node) or self.tree.is_inside(node, self.call):
                continue
            if not self.tree.has_own_name(node, self.call):
                found[node] = None
        return list(found)

    def _values_for_others(self, given: Sequence[Node]) -> list[Node]:
        """What others use of the call besides ``given``; no sizes that the results tell them."""
        used = [
            n
            for n in self.call.nodes()
            if n not in given and self.tree.is_used_outside(n, self.call)
        ]
        tensors = [n for n in used if not is_number(n)]
        told = {
            size for node in (*given, *tensors) if self.tree.sizes_stay for size in _sizes(node)
        }
        return [n for n in used if not is_number(n) or not _is_told(n, told)]

    # -- items ----------------------------------------------------------------------------------

    def _run_items(self) -> None:
        for item in self.call.items:
            if isinstance(item, Call):
                self._call(item)
            else:
                self._copy(item)

    def _copy(self, node: Node) -> None:
        new = self.graph.create_node(
            node.op, node.target, self._mapped(node.args), self._mapped(node.kwargs), node.name
        )
        new.meta = dict(node.meta)
        self._keep(node, new)

    def _keep(self, node: Node, new: Node) -> None:
        self.values[node] = new
        if self.tree.sizes_stay:
            for dim, size in enumerate(_dims(node)):
                if isinstance(size, Expr):
                    self.told.setdefault(size, (new, dim))

    def _call(self, call: Call) -> None:
        body = self.bodies.add(_Builder(call, self.bodies).body())
        target = call.path.removeprefix(self.prefix)
        self.bodies.note_read(self.call.path, call.path)
        if body.signature is None and (len(body.takes) > 1 or len(body.gives) > 1):
            self.bodies.flat.append(body)
        args, kwargs = self._arguments(body)
        if not body.is_captured:
            node = self.graph.call_module(target, args, kwargs)
            captured = None
        else:
            values = tuple(self._value(n) for n in body.extras)
            place = (body.index, values, len(body.extra_gives))
            captured = self.graph.call_function(Captured, place)
            module = self.graph.get_attr(target)
            module.meta[STATE] = True
            node = self.graph.call_function(call_captured, (module, captured, *args), kwargs)
        node.meta["nn_module_stack"] = next(call.nodes()).meta.get("nn_module_stack")
        self._take_results(body, node)
        if captured is not None and body.extra_gives:
            results = self.graph.call_function(results_of, (captured,))
            self._take_items(body.extra_gives, results)

    def _arguments(self, body: Body) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if body.signature is None:
            return tuple(self._value(n) for n in body.takes), {}
        leaves = iter(self._leaf_values(body.signature.inputs))
        args, kwargs = body.signature.in_spec.children()
        return (
            tuple(self._container(spec, leaves) for spec in args.children()),
            {
                key: self._container(spec, leaves)
                for key, spec in zip(kwargs.context, kwargs.children(), strict=True)
            },
        )

    def _take_results(self, body: Body, result: Node) -> None:
        if body.signature is None:
            if len(body.gives) == 1:
                result.meta["val"] = body.gives[0].meta.get("val")
                self._keep(body.gives[0], result)
            else:
                self._take_items(body.gives, result)
            return
        signature = body.signature
        if not signature.out_spec.is_leaf():
            leaves = Leaves(signature.out_spec, body.call.path)
            result = self.graph.call_function(leaves, (result,))
        for i, argument in enumerate(signature.outputs):
            if isinstance(argument, ConstantArgument):
                continue
            node = self.tree.nodes[argument.name]
            if node in self.values:
                continue
            if signature.out_spec.is_leaf():
                result.meta["val"] = node.meta.get("val")
                self._keep(node, result)
            else:
                self._take_item(node, result, i)

    def _take_items(self, nodes: Iterable[Node], result: Node) -> None:
        for i, node in enumerate(nodes):
            self._take_item(node, result, i)

    def _take_item(self, node: Node, result: Node, index: int) -> None:
        item = self.graph.call_function(operator.getitem, (result, index))
        item.meta["val"] = node.meta.get("val")
        self._keep(node, item)

    # -- values ---------------------------------------------------------------------------------

    def _input(self, node: Node) -> Node:
        """A placeholder after the others."""
        if self._last_input is not None:
            place = self.graph.inserting_after(self._last_input)
        else:
            place = self.graph.inserting_before(next(iter(self.graph.nodes), None))
        with place:
            new = self.graph.placeholder(node.name)
        new.target = new.name
        new.meta["val"] = node.meta.get("val")
        self._last_input = new
        if node not in self.values:
            self._keep(node, new)
        return new

    def _mapped(self, value: Any) -> Any:
        return torch.fx.node.map_arg(value, self._value)

    def _value(self, node: Node) -> Node:
        """What stands for a value of the program here."""
        node = self.tree.resolved(node, self.call)
        known: Node | None = self.values.get(node)
        if known is not None:
            return known
        if node.op == "get_attr":
            self.values[node] = self.graph.create_node("get_attr", node.target)
            self.values[node].meta = dict(node.meta)
            return self.values[node]  # type: ignore[no-any-return]
        name = self.tree.own_name(node, self.call)
        if name is not None:
            return self._state(node, name)
        if not is_number(node):
            raise InternalError(f"{node.name} is used in {self.call.name!r} before it is known")
        found = self._size(node)
        if found is None:
            found = self._input(node)
            self.late.append(node)
        return found

    def _state(self, node: Node, fqn: str) -> Node:
        new = self.graph.create_node("get_attr", fqn.removeprefix(self.prefix), name=node.name)
        new.meta = {"val": node.meta.get("val"), STATE: True}
        self.bodies.note_read(self.call.path, fqn)
        self._keep(node, new)
        return new

    # -- sizes ----------------------------------------------------------------------------------

    def _size(self, node: Node) -> Node | None:
        """A number from what is told here, or None."""
        size = to_size(node.meta["val"])
        place = self.told.get(size) if isinstance(size, Expr) else None
        if place is None and not (is_arithmetic(node) and self._can_compute(node)):
            return None
        if place is not None:
            new = self.graph.call_function(aten.sym_size.int, place)
        else:
            new = self.graph.create_node(
                node.op, node.target, self._mapped(node.args), dict(node.kwargs), node.name
            )
        new.meta = dict(node.meta)
        self.values[node] = new
        return new

    def _can_compute(self, node: Node) -> bool:
        return not node.kwargs and all(
            n in self.values or _is_told(n, self.told) for n in node.all_input_nodes
        )

    def _drop_unused(self) -> None:
        """Erase sizes and elements of results that nobody uses."""
        for node in reversed(self.graph.nodes):
            is_light = node.target in (aten.sym_size.int, operator.getitem) or is_arithmetic(node)
            if node.op == "call_function" and is_light and not node.users:
                self.graph.erase_node(node)

    # -- containers -----------------------------------------------------------------------------

    def _leaf_values(self, arguments: Iterable[Any]) -> list[Any]:
        return [
            a.value if isinstance(a, ConstantArgument) else self._value(self.tree.nodes[a.name])
            for a in arguments
        ]

    def _structured(self, signature: ModuleCallSignature) -> Any:
        """The result as the user's code returned it."""
        leaves = iter(self._leaf_values(signature.outputs))
        return self._container(signature.out_spec, leaves)

    def _container(self, spec: pytree.TreeSpec, leaves: Any) -> Any:
        if spec.is_leaf():
            return next(leaves)
        if is_plain(spec):
            taken = [next(leaves) for _ in range(spec.num_leaves)]
            return pytree.tree_unflatten(taken, spec)
        taken = [next(leaves) for _ in range(spec.num_leaves)]
        return self.graph.call_function(Rebuild(spec), (taken,))


def _dims(node: Node) -> tuple[Any, ...]:
    val = node.meta.get("val")
    return val.sizes if isinstance(val, FakeTensor) else ()


def _sizes(node: Node) -> list[Expr]:
    return [s for s in _dims(node) if isinstance(s, Expr)]


def _is_told(node: Node, told: Any) -> bool:
    """Whether a number follows from sizes that are told."""
    size = to_size(node.meta.get("val"))
    if isinstance(size, Expr) and size in told:
        return True
    return (
        is_arithmetic(node)
        and not node.kwargs
        and all(_is_told(n, told) for n in node.all_input_nodes)
    )


# -- equal bodies ---------------------------------------------------------------------------------


def _form(body: Body, tree: CallTree) -> list[Any]:
    """What a body is, apart from names: equal forms run alike."""
    signature = body.signature
    flat = None
    if signature is not None:
        constants = [a.value for a in (*signature.inputs, *signature.outputs)
                     if isinstance(a, ConstantArgument)]  # fmt: skip
        flat = (signature.in_spec, signature.out_spec, repr(constants))
    counts = len(body.takes), len(body.extras), len(body.gives), len(body.extra_gives)
    return [flat, counts, *_graph_form(body.graph, tree.program.graph_module)]


def _graph_form(graph: torch.fx.Graph, owner: Any) -> list[Any]:
    numbers = {node: i for i, node in enumerate(graph.nodes)}
    rows: list[Any] = []
    for node in graph.nodes:
        target: Any = node.target
        if node.op == "placeholder":
            target = None
        elif node.op == "get_attr" and STATE not in node.meta:
            inner = getattr(owner, str(node.target))
            target = _graph_form(inner.graph, inner)
        elif promise_of(node, ()) is not None:
            target = (target, id(node))  # what is checked depends on the node
        rows.append(
            (
                node.op, target, type(node.meta.get("val")).__name__,
                _argument_form(node.args, numbers.__getitem__),
                _argument_form(node.kwargs, numbers.__getitem__),
            )
        )  # fmt: skip
    return rows


def _argument_form(value: Any, number: Callable[[Node], int]) -> Any:
    if isinstance(value, Node):
        return ("node", number(value))
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, *(_argument_form(v, number) for v in value))
    if isinstance(value, dict):
        return ("dict", *((k, _argument_form(v, number)) for k, v in value.items()))
    if isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
        return ("slice", *(_argument_form(v, number) for v in parts))
    return (type(value).__name__, repr(value))
