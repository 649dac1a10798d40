"""The tree of module calls in a program's graph, and who uses which value.

A node's ``nn_module_stack`` says which calls it was recorded in. :func:`call_tree` turns the flat
list of nodes into a tree of :class:`Call`, in the order of the graph: running the tree depth first
runs the nodes as the program does. A call that cannot be one piece is inlined: its nodes become
those of the call around it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch

from stillframe import torch_private
from stillframe.export.signature import ConstantArgument, InputKind, ModuleCallSignature
from stillframe.export.verifier import SYMBOLIC_TARGETS
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr
from stillframe.trace.scope import name_of_call

aten = torch.ops.aten

_SIZE_QUERIES = frozenset(
    {
        aten.sym_size.int, aten.sym_stride.int, aten.sym_numel.default,
        aten.sym_storage_offset.default,
    }
)  # fmt: skip
_ARITHMETIC = SYMBOLIC_TARGETS - {
    operator.getitem, torch_private.set_grad_enabled, torch.is_grad_enabled,
}  # fmt: skip


@dataclass(eq=False)
class Call:
    """One call of a module.

    Attributes:
        name: its path, and ``@1`` and so on from the second call on; empty for the root.
        path: of the module.
        class_name: qualified, of the module; the root's is that of the program.
        parent: the call around it; None for the root.
        items: nodes and calls, in order.
        signature: how it was called, where that was kept.
    """

    name: str
    path: str
    class_name: str = ""
    parent: Call | None = None
    items: list[torch.fx.Node | Call] = field(default_factory=list)
    signature: ModuleCallSignature | None = None

    def nodes(self) -> Iterator[torch.fx.Node]:
        """All nodes of the call and of the calls in it, in order."""
        for item in self.items:
            if isinstance(item, Call):
                yield from item.nodes()
            else:
                yield item

    def calls(self) -> Iterator[Call]:
        """All calls in it, outer ones first."""
        for item in self.items:
            if isinstance(item, Call):
                yield item
                yield from item.calls()

    def is_within(self, other: Call) -> bool:
        """Whether this is ``other``, or a call in it."""
        call: Call | None = self
        while call is not None and call is not other:
            call = call.parent
        return call is other

    def adopt(self, item: torch.fx.Node | Call) -> None:
        """Append an item."""
        if isinstance(item, Call):
            item.parent = self
        self.items.append(item)


@dataclass
class CallTree:
    """The calls of a program.

    Attributes:
        program: the program.
        root: the outermost call.
        owner: node -> the call that it is a node of.
        consumers: node -> the calls in which it is used.
        inlined: ``(path, path of the call around)`` of calls that are none of their own: those in
            subgraphs among them.
        nodes: the nodes of the program's graph by name.
        names: placeholder of state -> its names, its own first; tied tensors have several.
        state: result of an operator that wrote to state in place -> the placeholder of that state,
            which is the same tensor.
        instead: ``(node, call that uses it)`` -> the node that it uses instead.
        sizes_stay: whether no operator changes sizes in place, so that a size may be read early.
    """

    program: Any
    root: Call
    owner: dict[torch.fx.Node, Call] = field(default_factory=dict)
    consumers: dict[torch.fx.Node, set[Call]] = field(default_factory=dict)
    inlined: list[tuple[str, str]] = field(default_factory=list)
    nodes: dict[str, torch.fx.Node] = field(default_factory=dict)
    names: dict[torch.fx.Node, list[str]] = field(default_factory=dict)
    state: dict[torch.fx.Node, torch.fx.Node] = field(default_factory=dict)
    instead: dict[tuple[torch.fx.Node, Call], torch.fx.Node] = field(default_factory=dict)
    sizes_stay: bool = True

    def resolved(self, node: torch.fx.Node, call: Call) -> torch.fx.Node:
        """What ``call`` uses where its nodes name ``node``."""
        while (node, call) in self.instead:
            node = self.instead[node, call]
        return node

    def is_inside(self, node: torch.fx.Node, call: Call) -> bool:
        """Whether ``node`` is computed in ``call``."""
        owner = self.owner.get(node)
        return owner is not None and owner.is_within(call)

    def is_used_outside(self, node: torch.fx.Node, call: Call) -> bool:
        """Whether somebody around ``call`` needs ``node``."""
        return any(not c.is_within(call) for c in self.consumers.get(node, ()))

    def own_name(self, node: torch.fx.Node, call: Call) -> str | None:
        """The name of the state that ``node`` is, if it has one below the module of ``call``."""
        if not call.path:
            return None
        names = self.names.get(self.state.get(node, node), ())
        return next((fqn for fqn in names if fqn.startswith(f"{call.path}.")), None)

    def has_own_name(self, node: torch.fx.Node, call: Call) -> bool:
        """Whether ``call`` reads ``node`` from its module; it is computed elsewhere, if at all."""
        return self.own_name(node, call) is not None and not self.is_inside(node, call)

    def named(self, arguments: Sequence[Any]) -> list[torch.fx.Node]:
        """The nodes that a signature speaks of."""
        return [self.nodes[a.name] for a in arguments if not isinstance(a, ConstantArgument)]

    def uses(self, call: Call) -> Iterator[torch.fx.Node]:
        """The values that a call uses, in order: those of its signature, then of its nodes."""
        signature = call.signature
        if signature is not None:
            yield from self.arguments(call)
        for item in call.items:
            if isinstance(item, Call):
                yield from self.uses(item)
            else:
                yield from (self.resolved(n, call) for n in item.all_input_nodes)
        if signature is not None:
            yield from (self.resolved(n, call) for n in self.named(signature.outputs))

    def arguments(self, call: Call) -> list[torch.fx.Node]:
        """The values that a call with a signature is called with."""
        assert call.signature is not None and call.parent is not None
        return [self.resolved(n, call.parent) for n in self.named(call.signature.inputs)]


def is_number(node: torch.fx.Node) -> bool:
    """Whether a node computes a symbolic number."""
    return isinstance(to_size(node.meta.get("val")), Expr)


def is_arithmetic(node: torch.fx.Node) -> bool:
    """Whether a node computes a number from numbers, and does nothing else."""
    return node.target in _ARITHMETIC and is_number(node)


def call_tree(program: Any) -> CallTree:
    """The tree of the calls of a program."""
    graph: torch.fx.Graph = program.graph
    tree = CallTree(program, _nested(graph))
    tree.nodes = {node.name: node for node in graph.nodes}
    tree.names = _state_names(program)
    tree.state = _written_state(graph, tree.names)
    tree.sizes_stay = not any(_changes_sizes(node) for node in graph.nodes)
    _inline_split(tree)
    _inline_unreachable(tree)
    _inline_unbalanced(tree)
    if tree.sizes_stay:
        _sizes_first(tree)
    _own(tree)
    _note_subgraphs(tree)
    _sign(tree)
    _count_consumers(tree)
    return tree


# -- nesting --------------------------------------------------------------------------------------


Frame = tuple[str, str, str]  # name of a call, path, class


def _nested(graph: torch.fx.Graph) -> Call:
    """The nodes in calls, by their module stacks. Inputs, outputs and subgraphs belong nowhere."""
    nodes = [n for n in graph.nodes if n.op == "call_function"]
    stacks = _stacks(nodes)
    root = Call("", "")
    open_calls = [root]
    for node, frames in zip(nodes, stacks, strict=True):
        depth = _common(frames, [(c.name, c.path, c.class_name) for c in open_calls[1:]])
        del open_calls[depth + 1 :]
        for frame in frames[depth:]:
            call = Call(*frame)
            open_calls[-1].adopt(call)
            open_calls.append(call)
        open_calls[-1].adopt(node)
    return root


def _stacks(nodes: Sequence[torch.fx.Node]) -> list[list[Frame]]:
    """The frames of each node below the root. One without a stack is where its neighbours are."""
    known = [_frames(n.meta["nn_module_stack"]) if "nn_module_stack" in n.meta else None
             for n in nodes]  # fmt: skip
    following: list[list[Frame]] = []
    ahead: list[Frame] = []
    for frames in reversed(known):
        following.append(ahead)
        ahead = ahead if frames is None else frames
    following.reverse()
    found: list[list[Frame]] = []
    before: list[Frame] = []
    for frames, after in zip(known, following, strict=True):
        before = before[: _common(before, after)] if frames is None else frames
        found.append(before)
    return found


def _frames(stack: Any) -> list[Frame]:
    frames = []
    for key, (path, cls) in stack.items():
        name = name_of_call(key) if "." in key else path
        if path:
            frames.append((name, path, cls if isinstance(cls, str) else cls.__qualname__))
    return frames


def _common(a: Sequence[Frame], b: Sequence[Frame]) -> int:
    """How many frames two stacks share, from the outside."""
    count = 0
    for one, other in zip(a, b, strict=False):
        if one[0] != other[0]:
            break
        count += 1
    return count


# -- calls that cannot be one piece ---------------------------------------------------------------


def _inline(tree: CallTree, call: Call) -> None:
    """Put the items of a call in its place."""
    parent = call.parent
    assert parent is not None
    at = parent.items.index(call)
    for item in call.items:
        if isinstance(item, Call):
            item.parent = parent
    parent.items[at : at + 1] = call.items
    tree.inlined.append((call.path, parent.path))


def _inline_split(tree: CallTree) -> None:
    """A call whose nodes are not together: others were moved between them."""
    found: dict[str, list[Call]] = {}
    for call in tree.root.calls():
        found.setdefault(call.name, []).append(call)
    for calls in found.values():
        if len(calls) > 1:
            for call in calls:
                _inline(tree, call)


def _inline_unreachable(tree: CallTree) -> None:
    """A call of a module that is not below its caller: the caller cannot reach it by a name."""
    for call in list(tree.root.calls()):
        parent = call.parent
        assert parent is not None
        if parent.path and not call.path.startswith(f"{parent.path}."):
            _inline(tree, call)


def _inline_unbalanced(tree: CallTree) -> None:
    """A call that begins where gradients were switched, switches them itself, or leaves them so.

    A body switches back to the mode that it found. That is the mode of the program's caller, as it
    must be, only where nothing outside has switched.
    """
    switched: set[torch.fx.Node] = set()  # nodes that run, and leave, in the other mode
    is_switched = False
    inner: bool | None = None
    switches: set[torch.fx.Node] = set()
    for node in tree.root.nodes():
        if is_switched:
            switched.add(node)
        if node.target is torch_private.set_grad_enabled:
            switches.add(node)
            inner = bool(node.args[0]) if inner is None else inner
            is_switched = bool(node.args[0]) == inner
    for call in list(tree.root.calls()) if switches else ():
        nodes = list(call.nodes())
        own = [n for n in nodes if n in switches]
        if own and (nodes[0] in switched or bool(own[-1].args[0]) == inner):
            _inline(tree, call)


def _note_subgraphs(tree: CallTree) -> None:
    """Modules that are called in functions of higher-order operators are no calls of their own."""
    for node in tree.program.graph.nodes:
        if node.op != "get_attr":
            continue
        inner = getattr(tree.program.graph_module, str(node.target))
        paths = dict.fromkeys(_paths_in(inner))
        around = {tree.owner[user].path for user in node.users}
        tree.inlined += [(path, outer) for path in paths for outer in around]


def _paths_in(module: torch.fx.GraphModule) -> Iterator[str]:
    """The paths of the module calls in a subgraph, and in its own subgraphs."""
    for node in module.graph.nodes:
        for path, _ in (node.meta.get("nn_module_stack") or {}).values():
            if path:
                yield path
        if node.op == "get_attr":
            yield from _paths_in(getattr(module, str(node.target)))


# -- sizes ----------------------------------------------------------------------------------------


_NEW_LAYOUTS = ("aten::resize_", "aten::resize_as_", "aten::set_")


def _changes_sizes(node: torch.fx.Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    return torch.Tag.inplace_view in target.tags or target._schema.name in _NEW_LAYOUTS


def _sizes_first(tree: CallTree) -> None:
    """Sizes that follow from the program's inputs belong to the root, before everything else."""
    free: set[torch.fx.Node] = set()
    for node in tree.root.nodes():
        if node.target in _SIZE_QUERIES:
            source = node.args[0]
            if isinstance(source, torch.fx.Node) and source.op == "placeholder":
                free.add(node)
        elif is_arithmetic(node) and all(
            n in free or n.op == "placeholder" for n in node.all_input_nodes
        ):
            free.add(node)
    moved = [n for n in tree.root.nodes() if n in free]
    for call in (tree.root, *tree.root.calls()):
        call.items = [i for i in call.items if isinstance(i, Call) or i not in free]
    tree.root.items[:0] = moved
    for call in reversed(list(tree.root.calls())):
        if not call.items:
            assert call.parent is not None
            call.parent.items.remove(call)


# -- who uses what --------------------------------------------------------------------------------


def _own(tree: CallTree) -> None:
    for call in (tree.root, *tree.root.calls()):
        tree.owner.update((i, call) for i in call.items if not isinstance(i, Call))


def _sign(tree: CallTree) -> None:
    """Give calls the signatures that were kept, where these speak of what is there by then."""
    signatures = {e.fqn: e.signature for e in tree.program.module_call_graph if e.fqn}
    order = {node: i for i, node in enumerate(tree.root.nodes())}
    for call in tree.root.calls():
        signature = signatures.get(call.name)
        if signature is None:
            continue
        positions = [order[n] for n in call.nodes()]
        given = all(order.get(n, -1) < positions[0] for n in tree.named(signature.inputs))
        computed = all(order.get(n, -1) <= positions[-1] for n in tree.named(signature.outputs))
        if given and computed:
            call.signature = signature


def _count_consumers(tree: CallTree) -> None:
    """Nodes are used in the calls of their users; arguments of a signature around its call.

    Where a call, or one around it, reads the value from its own module, nobody has to bring it.
    """

    uses = [
        (node, tree.owner.get(user, tree.root))
        for node in tree.program.graph.nodes
        for user in node.users
    ]
    for call in tree.root.calls():
        if call.signature is not None:
            assert call.parent is not None
            uses += [(node, call.parent) for node in tree.named(call.signature.inputs)]
            uses += [(node, call) for node in tree.named(call.signature.outputs)]
    tree.instead = instead_of_echoes(uses, tree.owner)
    for node, user in uses:
        _consume(tree, tree.resolved(node, user), user)


def _consume(tree: CallTree, node: torch.fx.Node, call: Call) -> None:
    around: Call | None = call
    while around is not None:
        if tree.has_own_name(node, around):
            return
        around = around.parent
    tree.consumers.setdefault(node, set()).add(call)


# -- values that an operator hands back ---------------------------------------------------------


_DROPOUTS = frozenset(
    {
        aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default,
        aten.feature_alpha_dropout.default,
    }
)  # fmt: skip
_CONVERSIONS = frozenset(getattr(aten.to, name) for name in aten.to.overloads())


def echoed(node: torch.fx.Node) -> torch.fx.Node | None:
    """The argument that an operator hands back: ``x.to(x.dtype)`` and ``x.add_(1)`` are ``x``."""
    written = _returned_argument(node)
    if written is not None:
        return written
    source = node.args[0] if node.args else None
    if not isinstance(source, torch.fx.Node):
        return None
    if node.target in _DROPOUTS:
        return source if node.args[2:] == (False,) else None
    if node.target not in _CONVERSIONS:
        return None
    before, after = source.meta.get("val"), node.meta.get("val")
    if not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor):
        return None
    same = before.dtype == after.dtype and before.device == after.device
    as_it_is = True not in node.args and not {"copy", "memory_format"} & set(node.kwargs)
    return source if same and as_it_is else None


Use = tuple[torch.fx.Node, Call]


def instead_of_echoes(uses: Sequence[Use], owner: Mapping[torch.fx.Node, Call]) -> dict[Use, Any]:
    """``(node, call)`` -> what the call uses instead of ``node``.

    A tensor that was converted to the dtype that it has is known to the capture by its new node,
    from then on, also to those who hold the old one: ``x.to(x.dtype)`` in a submodule is then what
    the modules around it use for ``x``, and so it is for tensors written in place. They use ``x``,
    which is the same tensor, unless the submodule returns the new node:
    its signature says so, or nothing else comes out of it.
    """
    found: dict[Use, torch.fx.Node] = {}
    others: set[Call] = set()  # something comes out of them that is no echo
    pending = list(uses)
    for node, call in pending:
        left = _left(node, call, owner)
        if not left or (node, call) in found:
            continue
        source = _source_outside(node, left[-1], owner)
        if source is None:
            others.update(left)
        else:
            found[node, call] = source
            pending.append((source, call))
    return {
        (node, call): source
        for (node, call), source in found.items()
        if not _returns(_left(node, call, owner)[-1], node, others)
    }


def _source_outside(
    node: torch.fx.Node, around: Call, owner: Mapping[torch.fx.Node, Call]
) -> torch.fx.Node | None:
    """The value from outside of a call that is handed back by nodes inside, down to ``node``."""
    source: torch.fx.Node | None = node
    while source is not None:
        home = owner.get(source)
        if home is None or not home.is_within(around):
            return source
        source = echoed(source)
    return None


def _left(node: torch.fx.Node, user: Call, owner: Mapping[torch.fx.Node, Call]) -> list[Call]:
    """The calls that ``node`` comes out of on its way to ``user``, inner ones first."""
    found = []
    call = owner.get(node)
    while call is not None and not user.is_within(call):
        found.append(call)
        call = call.parent
    return found


def _returns(call: Call, node: torch.fx.Node, others: Set[Call]) -> bool:
    if call.signature is None:
        return call not in others
    return any(getattr(a, "name", "") == node.name for a in call.signature.outputs)


# -- state ----------------------------------------------------------------------------------------


def _state_names(program: Any) -> dict[torch.fx.Node, list[str]]:
    tables = {**dict(program.constants), **dict(program.state_dict)}
    groups: dict[int, list[str]] = {}
    for fqn, value in tables.items():
        groups.setdefault(id(value), []).append(fqn)
    nodes = [n for n in program.graph.nodes if n.op == "placeholder"]
    found = {}
    for node, spec in zip(nodes, program.graph_signature.input_specs, strict=True):
        if spec.kind is not InputKind.USER_INPUT and spec.target is not None:
            others = groups.get(id(tables.get(spec.target)), [])
            found[node] = [spec.target, *(fqn for fqn in others if fqn != spec.target)]
    return found


def _written_state(
    graph: torch.fx.Graph, names: Mapping[torch.fx.Node, Any]
) -> dict[torch.fx.Node, torch.fx.Node]:
    """``self.n.add_(1)`` is ``self.n``: in-place operators return the tensor that they wrote."""
    found: dict[torch.fx.Node, torch.fx.Node] = {}
    for node in graph.nodes:
        written = _returned_argument(node)
        if written is not None and found.get(written, written) in names:
            found[node] = found.get(written, written)
    return found


def _returned_argument(node: torch.fx.Node) -> torch.fx.Node | None:
    """The argument that an in-place operator returns."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    schema = node.target._schema
    if len(schema.returns) != 1 or not schema.arguments:
        return None
    result, first = schema.returns[0].alias_info, schema.arguments[0].alias_info
    if result is None or first is None or not (result.is_write and first.is_write):
        return None
    argument = node.args[0] if node.args else None
    return argument if isinstance(argument, torch.fx.Node) else None
