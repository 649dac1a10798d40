"""``flex_attention``: attention whose scores a function changes and another one masks.

Its gradient is ``flex_attention_backward``.

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
from stillframe.trace.attention_grad import Call
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
_BACKWARD = "flex_attention_backward"


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
    score, mask = _mods(recorder, fakes[0], score_mod, score_buffers, mask_mod, mask_buffers)
    score_node = attach(recorder, score.graph, "sdpa_score")
    mask_node = attach(recorder, mask.graph, "sdpa_mask")
    modules = [module_of(recorder, node) for node in (score_node, mask_node)]

    def arguments(items: Sequence[Any], score: Any, mask: Any, *extra: Any) -> tuple[Any, ...]:
        q, k, v, factor, *rest = items
        return q, k, v, score, (*rest, mask), factor, dict(options), *extra

    def forward() -> list[Any]:
        if is_real(recorder):
            extra = tuple(score.operands.values), tuple(mask.operands.values)
            results = arms.Results(run_real(op, arguments(main.values, *modules, *extra)))
        else:
            results = arms.Results(_results(recorder, fakes, score.dtype))
        extra = tuple(score.operands.nodes), tuple(mask.operands.nodes)
        return make_node(
            recorder, op, arguments(main.nodes, score_node, mask_node, *extra), results
        )

    def backward(values: Sequence[Any], grads: Sequence[Any], needs: Sequence[int]) -> Any:
        grad.check(recorder, score.graph, mask.graph)
        first, count = len(main.values), len(score.operands.values)
        q, k, v, factor, *block = values[:first]
        others, (out, lse) = values[first:-2], values[-2:]
        call = Call(
            q, k, v, factor, modules[0], modules[1], others[:count], others[count:],
            out, lse, grads[0], grads[1], _working_dtype(fakes[0]),
        )  # fmt: skip
        found: dict[int, Any] = {}
        places = [i for i in needs if first <= i < first + count]
        if places:
            found.update(zip(places, call.of_buffers([i - first for i in places]), strict=True))
        if needs[0] < len(fakes):
            found.update(enumerate(call.of_tensors(recorder, block, options)))
        return [found.get(i) for i in needs]

    values = [*main.values, *score.operands.values, *mask.operands.values]
    return tuple(grad.tied(recorder, values, forward, backward, kept=2, constant=(2,)))


@family(_BACKWARD)
def _flex_attention_backward(
    recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The gradients of query, key and value.

    ``joint_graph`` takes the score, the four indices, the gradient of the changed score and the
    buffers, and returns the gradient of the score first. Without one it is made of ``fw_graph``.
    """
    *tensors, score_mod, joint, block_mask, scale, options, score_buffers, mask_buffers = (
        *args, *kwargs.values(), (), (),
    )[:14]  # fmt: skip
    *block, mask_mod = block_mask
    main = Operands.of(recorder, (*tensors, scale, *block))
    fakes = [recorder.fake_mode.adopt(t) for t in main.values[:3]]
    _check_sizes(recorder, *fakes)
    _check_differentiable(recorder, fakes, score_buffers)
    score, mask = _mods(recorder, fakes[0], score_mod, score_buffers, mask_mod, mask_buffers)
    nodes = [attach(recorder, score.graph, "fw_graph")]
    joint_graph = score.gradient(recorder, joint, module_of(recorder, nodes[0]), fakes[0])
    nodes.append(attach(recorder, joint_graph, "joint_graph"))
    nodes.append(attach(recorder, mask.graph, "mask_graph"))

    def arguments(items: Sequence[Any], graphs: Sequence[Any], *extra: Any) -> tuple[Any, ...]:
        factor, *rest = items[7:]
        main_mod, joint_mod, mask_mod = graphs
        return (
            *items[:7], main_mod, joint_mod, (*rest, mask_mod), factor, dict(options), *extra,
        )  # fmt: skip

    def forward() -> list[Any]:
        if is_real(recorder):
            modules = [module_of(recorder, node) for node in nodes]
            extra = tuple(score.operands.values), tuple(mask.operands.values)
            results = arms.Results(run_real(op, arguments(main.values, modules, *extra)))
        else:
            nothing = (None,) * len(score.operands.values)
            results = arms.Results([*_gradients(recorder, fakes), nothing])
        extra = tuple(score.operands.nodes), tuple(mask.operands.nodes)
        return make_node(recorder, op, arguments(main.nodes, nodes, *extra), results)

    values = [*main.values, *score.operands.values, *mask.operands.values]
    results = grad.tied(recorder, values, forward, grad.no_gradient(recorder, _BACKWARD))
    return *results[:3], (None,) * len(score_buffers)


def _mods(
    recorder: Recorder,
    query: FakeTensor,
    score_mod: Callable[..., Any],
    score_buffers: Sequence[Any],
    mask_mod: Callable[..., Any],
    mask_buffers: Sequence[Any],
) -> tuple[_Mod, _Mod]:
    """Both functions of attention as subgraphs."""
    first = [_scalar(recorder, _working_dtype(query), query.device)]
    score = _Mod(recorder, score_mod, first, score_buffers, query.device)
    mask = _Mod(recorder, mask_mod, [], mask_buffers, query.device)
    score.check(recorder, "score_mod", floating=True)
    mask.check(recorder, "mask_mod", floating=False)
    return score, mask


def _working_dtype(query: FakeTensor) -> torch.dtype:
    """The dtype of scores."""
    return torch.float64 if query.dtype is torch.float64 else torch.float32


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
        self.given = Operands.of(recorder, buffers)
        indices = [_scalar(recorder, torch.int64, device) for _ in range(4)]
        seen = [*first, *indices, *(inside(recorder, b) for b in self.given.values)]

        self.graph = Subgraph(recorder, _OWNER).trace(_by_tensors(function), seen, bare=True)
        self.operands = self.given.extended(close(self.graph))

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

    def gradient(
        self, recorder: Recorder, joint: Any, module: torch.fx.GraphModule, query: FakeTensor
    ) -> Subgraph:
        """``joint`` as a subgraph, or one that differentiates this function, ``module``."""
        buffers = self.given.values
        captured = self.operands.values[len(buffers) :]
        product = grad.vjp(recorder, module, 5 + len(self.operands.values), [0])

        def of_score(*leaves: Any) -> Any:
            return product(*leaves[:5], *leaves[6:], *captured, leaves[5])

        def of_joint(*leaves: Any) -> Any:
            return joint(*leaves)[:1]

        dtype, device = _working_dtype(query), query.device
        seen = [_scalar(recorder, dtype, device)]
        seen += [_scalar(recorder, torch.int64, device) for _ in range(4)]
        seen += [_scalar(recorder, self.dtype, device), *(inside(recorder, b) for b in buffers)]
        function = of_score if joint is None else _by_tensors(of_joint)
        graph = Subgraph(recorder, _BACKWARD).trace(function, seen)
        self.operands = self.given.extended(close(self.graph, graph))
        first = graph.outputs[0]
        if not isinstance(first, FakeTensor) or first.dim() > 0:
            raise InvalidInput(
                f"The joint_graph of {_BACKWARD} must return the gradient of one score first, got "
                f"{first}.",
                where=stack.summary(stack.raw_stack(recorder.floor)),
            )
        _return_nothing_else(graph, 4 + len(self.operands.values))
        return graph


def _return_nothing_else(graph: Subgraph, count: int) -> None:
    """Add ``count`` results that are None: torch wants a list with a place for every argument."""
    output = next(reversed(graph.graph.nodes))
    output.args = ([*output.args[0], *[None] * count],)
    output.meta["val"] = [*output.meta["val"], *[None] * count]


def _by_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*values: Any) -> Any:
        with _IndexByTensors():
            return function(*values)

    return run


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


def _check_differentiable(
    recorder: Recorder, fakes: Sequence[FakeTensor], buffers: Sequence[Any]
) -> None:
    """What the backward of attention cannot do."""
    where = stack.summary(stack.raw_stack(recorder.floor))
    if len({fake.dtype for fake in fakes}) > 1:
        raise InvalidInput(
            "The gradient of flex_attention takes query, key and value of one dtype, got "
            f"{', '.join(str(fake.dtype) for fake in fakes)}.",
            where=where,
        )
    if any(isinstance(b, torch.Tensor) and b.requires_grad for b in buffers):
        raise NotSupported(
            f"{_BACKWARD} with the gradient of a tensor that score_mod looks into.",
            where=where,
            hints=["differentiate flex_attention itself", "or detach the tensor"],
        )


def _gradients(recorder: Recorder, fakes: Sequence[FakeTensor]) -> list[FakeTensor]:
    """The gradients of query, key and value, in their layouts.

    Keys and values of one batch, for queries of several, get the sum over the batches.
    """
    query, *shared = fakes
    batch = query.sizes[0]

    def make(like: FakeTensor, sizes: Sequence[Size]) -> FakeTensor:
        strides = _strides_like(recorder, sizes, like.strides)
        return FakeTensor.make(recorder.env, sizes, strides, 0, like.dtype, like.device)

    results = [make(query, query.sizes)]
    for fake in shared:
        result = make(fake, (batch, *fake.sizes[1:]))
        if recorder.env.wrap(to_size(batch)) != recorder.env.wrap(to_size(fake.sizes[0])):
            result = recorder.fake_mode.run(aten.sum.dim_IntList, (result, [0], True), {})
        results.append(result)
    return results


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
