"""``flex_attention``: attention whose scores a function changes and another one masks.

Both functions are subgraphs of scalars: the score and the four indices (batch, head, query, key).
A tensor that they look into by these indices is an operand, and ``bias[h, q - k]`` is one ``index``
operator, since the functions run for all indices at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from stillframe import stack
from stillframe.errors import InvalidInput, NotSupported
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout
from stillframe.shapes.env import Size, to_size
from stillframe.trace import arms, indexing
from stillframe.trace import higher_order_grad as grad
from stillframe.trace.higher_order import (
    Operands,
    attach,
    family,
    is_real,
    make_node,
    module_of,
    run_real,
)
from stillframe.trace.subgraphs import Subgraph, close, inside

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder

aten = torch.ops.aten
_OWNER = "flex_attention"


@family(_OWNER)
def _flex_attention(
    recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    query, key, value, score_mod, block_mask, scale, options, *buffers = (*args, *kwargs.values())
    score_buffers, mask_buffers = (*buffers, (), ())[:2]
    *block, mask_mod = block_mask
    main = Operands.of(recorder, (query, key, value, scale, *block))
    fakes = [recorder.fake_mode.adopt(t) for t in main.values[:3]]
    _check_sizes(recorder, *fakes)
    dtype = torch.float64 if fakes[0].dtype is torch.float64 else torch.float32
    device = fakes[0].device
    first = [_scalar(recorder, dtype, device)]
    score = _Mod(recorder, score_mod, first, score_buffers, device)
    mask = _Mod(recorder, mask_mod, [], mask_buffers, device)
    score.check(recorder, "score_mod", floating=True)
    mask.check(recorder, "mask_mod", floating=False)
    score_node = attach(recorder, score.graph, "sdpa_score")
    mask_node = attach(recorder, mask.graph, "sdpa_mask")

    def arguments(items: Sequence[Any], score: Any, mask: Any, *extra: Any) -> tuple[Any, ...]:
        q, k, v, factor, *rest = items
        return q, k, v, score, (*rest, mask), factor, dict(options), *extra

    def forward() -> list[Any]:
        if is_real(recorder):
            modules = [module_of(recorder, node) for node in (score_node, mask_node)]
            extra = tuple(score.operands.values), tuple(mask.operands.values)
            results = arms.Results(run_real(op, arguments(main.values, *modules, *extra)))
        else:
            results = arms.Results(_results(recorder, fakes, score.dtype))
        extra = tuple(score.operands.nodes), tuple(mask.operands.nodes)
        return make_node(
            recorder, op, arguments(main.nodes, score_node, mask_node, *extra), results
        )

    values = [*main.values, *score.operands.values, *mask.operands.values]
    return tuple(grad.tied(recorder, values, forward, grad.no_gradient(recorder, _OWNER)))


class _Mod:
    """A function of scalars as a subgraph, with the tensors that it looks into."""

    def __init__(
        self,
        recorder: Recorder,
        function: Callable[..., Any],
        first: list[Any],
        buffers: Sequence[Any],
        device: torch.device,
    ) -> None:
        operands = Operands.of(recorder, buffers)
        indices = [_scalar(recorder, torch.int64, device) for _ in range(4)]
        seen = [*first, *indices, *(inside(recorder, b) for b in operands.values)]

        def run(*values: Any) -> Any:
            with _IndexByTensors():
                return function(*values)

        self.graph = Subgraph(recorder, _OWNER).trace(run, seen, bare=True)
        self.operands = operands.extended(close(self.graph))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the result."""
        dtype: torch.dtype = self.graph.outputs[0].dtype
        return dtype

    def check(self, recorder: Recorder, name: str, *, floating: bool) -> None:
        """Refuse what attention cannot use as a score or as a mask."""
        outputs = self.graph.outputs
        one = len(outputs) == 1 and isinstance(outputs[0], FakeTensor) and outputs[0].dim() == 0
        where = stack.summary(stack.raw_stack(recorder.floor))
        if not one or (self.dtype.is_floating_point if floating else self.dtype is torch.bool) is (
            False
        ):
            kind = "score" if floating else "bool"
            raise InvalidInput(
                f"The {name} of flex_attention must return one {kind} without dims, got {outputs}.",
                where=where,
            )
        if self.graph.own_symbols:
            raise NotSupported(
                f"The {name} of flex_attention reads a number from a tensor.",
                why="it runs for all indices at once",
                where=where,
                hints=["index tensors by tensors only: bias[h], bias[h, q - k]"],
            )


class _IndexByTensors(TorchFunctionMode):
    """``x[h]`` and ``x[h, q]`` look into ``x`` at indices that are tensors without dims."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is indexing.GETITEM:
            parts = args[1] if isinstance(args[1], (list, tuple)) else (args[1],)
            if parts and all(isinstance(part, torch.Tensor) for part in parts):
                return aten.index.Tensor(args[0], list(parts))
        return func(*args, **(kwargs or {}))


def _scalar(recorder: Recorder, dtype: torch.dtype, device: torch.device) -> FakeTensor:
    return FakeTensor.make(recorder.env, (), (), 0, dtype, device)


# -- sizes -----------------------------------------------------------------------------------------


def _check_sizes(recorder: Recorder, query: FakeTensor, key: FakeTensor, value: FakeTensor) -> None:
    """What the multiplications inside need; a guard where it depends on the sizes."""
    batch, heads, _, width = (recorder.env.wrap(s) for s in query.sizes)
    key_batch, key_heads, length, key_width = (recorder.env.wrap(s) for s in key.sizes)
    value_batch, value_heads, value_length, _ = (recorder.env.wrap(s) for s in value.sizes)
    fits = (
        width == key_width
        and length == value_length
        and key_batch == value_batch
        and key_heads == value_heads
        and heads % key_heads == 0
        and (batch == key_batch or key_batch == 1)
    )
    if not fits:
        raise InvalidInput(
            f"The sizes of query, key and value do not fit: {query}, {key} and {value}.",
            where=stack.summary(stack.raw_stack(recorder.floor)),
        )


def _results(
    recorder: Recorder, fakes: Sequence[FakeTensor], score_dtype: torch.dtype
) -> list[FakeTensor]:
    """The output, the logarithms of the sums, and the largest scores."""
    query, _, value = fakes
    rows = query.sizes[:3]
    sizes = (*rows, value.sizes[3])
    needs = recorder.above_autograd and any(t.requires_grad for t in fakes)

    def make(sizes: Sequence[Size], strides: Sequence[Size], dtype: torch.dtype) -> FakeTensor:
        return FakeTensor.make(recorder.env, sizes, strides, 0, dtype, query.device, needs)

    def statistic() -> FakeTensor:
        return make(rows, layout.contiguous_strides(rows), score_dtype)

    return [
        make(sizes, _strides_like(recorder, sizes, query.strides), query.dtype),
        statistic(),
        statistic(),
    ]


def _strides_like(recorder: Recorder, sizes: Sequence[Size], like: Sequence[Size]) -> list[Size]:
    """Dense strides in the order of others, but the last dim is the innermost one."""
    wrapped = [recorder.env.wrap(to_size(s)) for s in like]
    order = sorted(range(len(sizes)), key=lambda d: (wrapped[d], -d))
    strides = _dense(sizes, order)
    if strides[-1] != 1:
        last = len(sizes) - 1
        strides = _dense(sizes, [last, *(d for d in order if d != last)])
    return strides


def _dense(sizes: Sequence[Size], order: Sequence[int]) -> list[Size]:
    strides: list[Size] = [1] * len(sizes)
    step: Size = 1
    for dim in order:
        strides[dim] = step
        step = step * sizes[dim]
    return strides
