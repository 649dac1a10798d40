"""Constants that forward makes once and keeps: ``if self.table is None: self.table = made()``.

A later call reads what the first one left, so such a tensor is looked at, unlike other leftovers.
It changes nothing if operators made it of constants alone: every call of the program makes the same
again. The second capture gets a real tensor in its place, and so has a constant there. Its program
must be the first one with that constant where the first one makes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from stillframe.export.signature import ConstantArgument, OutputSpec
from stillframe.export.state import Change, memory_of
from stillframe.fake.tensor import FakeTensor
from stillframe.trace.operators import has_effect

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Kept:
    """One such tensor.

    Attributes:
        made: what the first run left.
        node: the operator that made it.
        stand_in: a real tensor of the same layout, for the second; its values do not matter.
    """

    made: FakeTensor
    node: torch.fx.Node
    stand_in: torch.Tensor


def find(left: Iterable[Change], outputs: Iterable[Any]) -> list[Kept]:
    """The constants among the leftovers of a run whose graph has all its nodes yet."""
    given_away = {id(v.storage_) for v in outputs if isinstance(v, FakeTensor)}
    made = {id(c.value): c.value for c in left if isinstance(c.value, FakeTensor)}
    return [
        Kept(tensor, _maker(tensor), _stand_in(tensor))
        for tensor in made.values()
        if id(tensor.storage_) not in given_away and _is_constant(tensor)
    ]


def _is_constant(tensor: FakeTensor) -> bool:
    numbers = (*tensor.sizes, *tensor.strides, tensor.offset)
    if tensor.storage_.written or tensor.requires_grad or tensor.sparse is not None:
        return False
    if tensor.offset != 0 or not all(type(number) is int for number in numbers):
        return False
    return isinstance(tensor.fx_node, torch.fx.Node) and _is_made_of_constants(tensor.fx_node)


def _maker(tensor: FakeTensor) -> torch.fx.Node:
    """The first node with the tensor: operators such as ``to`` may have handed it back since."""
    node: torch.fx.Node = tensor.fx_node
    while any(given.meta.get("val") is tensor for given in node.all_input_nodes):
        node = next(n for n in node.all_input_nodes if n.meta.get("val") is tensor)
    return node


def _is_made_of_constants(node: torch.fx.Node) -> bool:
    """Whether operators without effects made the value, of nothing that a call could change."""
    waiting, seen = [node], {node}
    while waiting:
        found = waiting.pop()
        if not isinstance(found.target, torch._ops.OpOverload) or _has_effect(found):
            return False
        if found.target.namespace != "aten":
            return False
        if found.target is not aten.lift_fresh_copy.default:  # that is torch.tensor([1.0, 2.0])
            waiting += [n for n in found.all_input_nodes if n not in seen]
            seen.update(found.all_input_nodes)
    return True


def _has_effect(node: torch.fx.Node) -> bool:
    """Whether a node does more than to compute; ``torch.tensor`` ends with a ``detach_``."""
    if node.op == "placeholder" or node.target is aten.detach_.default:
        return False
    return has_effect(node)


def _stand_in(tensor: FakeTensor) -> torch.Tensor:
    sizes: Sequence[Any] = tensor.sizes
    strides: Sequence[Any] = tensor.strides
    return torch.empty_strided(sizes, strides, dtype=tensor.dtype, device=tensor.device).zero_()


def as_made(change: Change, real: Any, kept: Iterable[Kept]) -> Change | None:
    """What a second run left, said as the first would, if it left the constant where it was.

    Args:
        change: the attribute that is not as it was before the first run.
        real: the real tensor that its value stands for.
        kept: the constants of the first run.
    """
    for constant in kept:
        if real is constant.stand_in:
            return replace(change, value=constant.made)
    return None


def note(change: Change) -> str:
    """The sentence about one attribute."""
    return f"forward keeps a constant in self.{change.path}; the program makes it in every call"


def has_constants_instead(program: Any, other: Any, kept: Iterable[Kept]) -> bool:
    """Whether ``other`` is ``program`` with constants where that makes them."""
    cut = _cut(other, kept)
    return (
        _same_signature(program, other, cut)
        and program.out_spec == other.out_spec
        # conditions that only making the constant needs may stay: they admit fewer calls
        and {str(g) for g in program.guards} >= {str(g) for g in other.guards}
        and {str(a) for a in program.assumptions} >= {str(a) for a in other.assumptions}
        and _subgraphs(program) == _subgraphs(other)
        and _same_graph(program.graph_module.graph, other.graph_module.graph, cut)
    )


def _cut(other: Any, kept: Iterable[Kept]) -> dict[str, torch.fx.Node]:
    """Placeholder of the other program that stands for a constant -> node that makes this."""
    made = {memory_of(constant.stand_in): constant.node for constant in kept}
    found: dict[str, torch.fx.Node] = {}
    for spec in other.graph_signature.input_specs:
        value = other.constants.get(spec.target)
        if isinstance(value, torch.Tensor) and memory_of(value) in made:
            found[spec.arg.name] = made[memory_of(value)]
    return found


def _same_signature(program: Any, other: Any, cut: Mapping[str, torch.fx.Node]) -> bool:
    first, second = program.graph_signature, other.graph_signature
    needed = _still_needed(program.graph_module.graph, set(cut.values()))
    ours = [s for s in first.input_specs if any(n.name == s.arg.name for n in needed)]
    theirs = [s for s in second.input_specs if s.arg.name not in cut]
    return (
        ours == theirs
        and [_unnamed(s) for s in first.output_specs] == [_unnamed(s) for s in second.output_specs]
        and all(
            _same_value(program.constants[s.target], other.constants[s.target])
            for s in ours
            if s.target in program.constants
        )
    )


def _unnamed(spec: OutputSpec) -> Any:
    """An output without the name of its node, which the graphs are compared for."""
    value = repr(spec.arg.value) if isinstance(spec.arg, ConstantArgument) else None
    return spec.kind, type(spec.arg), value, spec.target


def _same_value(a: Any, b: Any) -> bool:
    if a is b or not isinstance(a, torch.Tensor):
        return a is b
    return bool(a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b))


def _subgraphs(program: Any) -> list[str]:
    parts = program.graph_module.named_modules()
    return [f"{n}: {m.graph}" for n, m in parts if n and isinstance(m, torch.fx.GraphModule)]


def _same_graph(
    first: torch.fx.Graph, second: torch.fx.Graph, cut: Mapping[str, torch.fx.Node]
) -> bool:
    """Whether the second graph is the first, node by node, with placeholders for the cut nodes."""
    known = {node.name: node for node in first.nodes}
    if not all(known.get(node.name) is node for node in cut.values()):
        return False
    as_first = {n: cut[n.name] for n in second.nodes if n.op == "placeholder" and n.name in cut}
    ours = _still_needed(first, set(cut.values()))
    theirs = _still_needed(second, set(as_first))
    if len(ours) != len(theirs):
        return False
    for one, two in zip(ours, theirs, strict=True):
        operands = torch.fx.node.map_arg((two.args, two.kwargs), as_first.__getitem__)
        is_same = one.op == two.op and (one.op == "output" or one.target == two.target)
        if not is_same or repr((one.args, one.kwargs)) != repr(operands):
            return False
        as_first[two] = one
    return True


def _still_needed(graph: torch.fx.Graph, cut: set[torch.fx.Node]) -> list[torch.fx.Node]:
    """The nodes that are left in a graph where those of ``cut`` are given from outside.

    Without the constants that nothing else took.
    """
    needed: set[torch.fx.Node] = set()
    for node in reversed(graph.nodes):
        if node in cut:
            continue
        is_unused_input = node.op == "placeholder" and not node.users
        if is_unused_input or node.op == "output" or _has_effect(node) or node in needed:
            needed.add(node)
            needed.update(node.all_input_nodes)
    return [node for node in graph.nodes if node in needed and node not in cut]
