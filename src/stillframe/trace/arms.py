"""What a call returns if one of several subgraphs runs: what is common to their results.

Dtype, device and rank must agree. A size on which the arms differ is a new unbacked symbol, which
the result itself tells when the program runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from stillframe import stack
from stillframe import symbolic as sym
from stillframe.errors import InvalidInput, NotSupported
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout
from stillframe.shapes.env import Size, to_size
from stillframe.symbolic import Expr, Range

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder
    from stillframe.trace.subgraphs import Subgraph

aten = torch.ops.aten


@dataclass
class Results:
    """The results of a call, and where its new symbols can be read.

    Attributes:
        values: fakes (or real tensors), symbolic numbers, constants.
        places: new symbol -> (result, ``"size"``, ``"stride"`` or ``"offset"``, dim).
    """

    values: list[Any]
    places: dict[Expr, tuple[Any, ...]] = field(default_factory=dict)

    def bind(self, recorder: Recorder, node: torch.fx.Node) -> None:
        """``node`` returns these results: later nodes read the symbols off it."""
        if not self.places:
            return
        node.meta["unbacked_bindings"] = self.places
        for symbol, (index, *what) in self.places.items():
            if not what:
                recorder.symbols.bind(symbol, recorder.item_node(node, index))
                continue
            query, *dims = _QUERIES[what[0]], *what[1:]
            recorder.symbols.bind_query(symbol, query, _reader(recorder, self.values[index]), *dims)


_QUERIES: dict[str, Any] = {
    "size": aten.sym_size.int,
    "stride": aten.sym_stride.int,
    "offset": aten.sym_storage_offset.default,
}


def _reader(recorder: Recorder, value: torch.Tensor) -> Callable[[], torch.fx.Node]:
    def read() -> torch.fx.Node:
        node = recorder.operand(value)
        assert isinstance(node, torch.fx.Node)
        return node

    return read


def merged(recorder: Recorder, first: Subgraph, second: Subgraph) -> Results:
    """What is known of the results of a call that runs one of two subgraphs.

    Raises:
        InvalidInput: they disagree on structure, dtype, device or rank.
    """
    if first.out_spec != second.out_spec:
        raise _disagree(recorder, first.owner, "containers", first.out_spec, second.out_spec)
    merge = _Merge(recorder, first, second)
    return merge.results()


class _Merge:
    def __init__(self, recorder: Recorder, first: Subgraph, second: Subgraph) -> None:
        self.recorder = recorder
        self.env = recorder.env
        self.first, self.second = first, second
        self.local = first.own_symbols | second.own_symbols
        self.found = Results([])

    def results(self) -> Results:
        pairs = zip(self.first.outputs, self.second.outputs, strict=True)
        for index, (a, b) in enumerate(pairs):
            self.found.values.append(self._value(index, a, b))
        return self.found

    def _value(self, index: int, a: Any, b: Any) -> Any:
        if isinstance(a, FakeTensor) and isinstance(b, FakeTensor):
            return self._tensor(index, a, b)
        kinds = {_kind(a), _kind(b)}
        if len(kinds) > 1:
            raise self._disagreement(index, "kinds", _kind(a), _kind(b))
        if kinds == {"None"}:
            return None
        if kinds != {"int"}:
            if to_size(a) == to_size(b) and not isinstance(to_size(a), Expr):
                return a
            raise NotSupported(
                f"The functions of {self.first.owner} return numbers that are no integers "
                f"(result {index}).",
                where=stack.summary(stack.raw_stack(self.recorder.floor)),
                hints=["return a tensor: torch.tensor(value)"],
            )
        numbers = to_size(a), to_size(b)
        return self.env.wrap(self._number(*numbers, self._ranges(index, 0), (index,)))

    def _tensor(self, index: int, a: FakeTensor, b: FakeTensor) -> FakeTensor:
        for what, x, y in (
            ("dtypes", a.dtype, b.dtype),
            ("devices", a.device, b.device),
            ("ranks", a.dim(), b.dim()),
        ):
            if x != y:
                raise self._disagreement(index, what, x, y)
        sizes = [
            self._number(x, y, self._ranges(index, d), (index, "size", d))
            for d, (x, y) in enumerate(zip(a.sizes, b.sizes, strict=True))
        ]
        dense = all(layout.is_contiguous(t.sizes, t.strides) for t in (a, b))
        strides = list(layout.contiguous_strides(sizes)) if dense else [
            self._number(x, y, None, (index, "stride", d))
            for d, (x, y) in enumerate(zip(a.strides, b.strides, strict=True))
        ]  # fmt: skip
        offset = self._number(a.offset, b.offset, None, (index, "offset"))
        grad = self.recorder.above_autograd and (a.requires_grad or b.requires_grad)
        return FakeTensor.make(self.env, sizes, strides, offset, a.dtype, a.device, grad)

    def _ranges(self, index: int, dim: int) -> Range:
        one, other = self.first.ranges[index][dim], self.second.ranges[index][dim]
        return Range(min(one.lower, other.lower), max(one.upper, other.upper))

    def _number(self, a: Size, b: Size, bounds: Range | None, place: tuple[Any, ...]) -> Size:
        """``a`` if both are the same number in every call, else a new symbol."""
        if same_number(self.recorder, a, b, self.local):
            return a
        bounds = Range(0) if bounds is None else bounds
        symbol = self.env.new_unbacked(bounds.lower, bounds.upper)
        self.found.places[symbol] = place
        return symbol

    def _disagreement(self, index: int, what: str, a: Any, b: Any) -> InvalidInput:
        return _disagree(self.recorder, self.first.owner, f"{what} (result {index})", a, b)


def same_number(recorder: Recorder, a: Size, b: Size, own_symbols: frozenset[Expr]) -> bool:
    """Whether two numbers are one in every call; those of symbols made inside never are."""
    if type(a) is int and type(b) is int:
        return a == b
    for size in (a, b):
        if isinstance(size, Expr) and not own_symbols.isdisjoint(size.free_symbols):
            return False
    return recorder.env.facts.decide(sym.const(sym.eq(a, b))) is True


def after_loop(recorder: Recorder, outputs: Sequence[Any]) -> Results:
    """The results of a loop whose last step, if there was any, returned ``outputs``."""
    results = Results([])
    for index, value in enumerate(outputs):
        if isinstance(value, FakeTensor):
            results.values.append(_dense(recorder, value, value.sizes))
            continue
        symbol = recorder.env.new_unbacked(float("-inf"))
        results.places[symbol] = (index,)
        results.values.append(recorder.env.wrap(symbol))
    return results


def stacked(recorder: Recorder, body: Subgraph, length: Size | None, carries: int = 0) -> Results:
    """The results of a loop that stacks what its steps return.

    Args:
        length: the number of steps; None if only the data can tell.
        carries: so many of the results are those of the last step alone.

    Raises:
        NotSupported: a result whose size may change from step to step, or that is no tensor.
    """
    results = Results([])
    for index, value in enumerate(body.outputs):
        if value is None:
            results.values.append(None)
            continue
        if not isinstance(value, FakeTensor) or _has_own_size(value, body.own_symbols):
            raise NotSupported(
                f"A step of {body.owner} returns {value} (result {index}), which cannot be stacked "
                "with those of other steps.",
                where=stack.summary(stack.raw_stack(recorder.floor)),
                hints=["return tensors whose sizes do not depend on data"],
            )
        sizes: tuple[Size, ...] = value.sizes
        if index >= carries:
            steps = length
            if steps is None:
                steps = recorder.env.new_unbacked(1)
                results.places[steps] = (index, "size", 0)
            sizes = (steps, *sizes)
        results.values.append(_dense(recorder, value, sizes))
    return results


def _has_own_size(value: FakeTensor, own_symbols: frozenset[Expr]) -> bool:
    sizes = [s for s in value.sizes if isinstance(s, Expr)]
    return any(not own_symbols.isdisjoint(s.free_symbols) for s in sizes)


def _dense(recorder: Recorder, like: FakeTensor, sizes: Sequence[Size]) -> FakeTensor:
    needs = recorder.above_autograd and like.requires_grad
    strides = layout.contiguous_strides(sizes)
    return FakeTensor.make(recorder.env, sizes, strides, 0, like.dtype, like.device, needs)


def _kind(value: Any) -> str:
    size = to_size(value)
    if isinstance(size, Expr):
        return size.sort
    return "None" if value is None else type(value).__name__


def _disagree(recorder: Recorder, owner: str, what: str, a: Any, b: Any) -> InvalidInput:
    return InvalidInput(
        f"The functions of {owner} return different {what}: {a} and {b}.",
        why="what follows runs after either of them",
        where=stack.summary(stack.raw_stack(recorder.floor)),
        hints=["make both return tensors of the same dtype, device and number of dims"],
    )
