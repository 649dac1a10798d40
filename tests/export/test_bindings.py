"""Every entry of the table of bindings calls exactly its overload with exactly the arguments.

The calls are those that the samples of torch's operator database make: each is seen by a dispatch
mode once as it comes and once more through the binding, and must arrive the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from stillframe.export import bindings

Call = tuple[Any, tuple[Any, ...], dict[str, Any]]
SAMPLES = 6


class Spy(TorchDispatchMode):
    """Notes the calls that reach dispatch, composite ones whole."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.calls.append((func, args, kwargs))
        return func(*args, **kwargs)


def seen(run: Callable[[], Any]) -> list[Call]:
    with torch.no_grad(), torch._C._AutoDispatchBelowAutograd(), Spy() as spy:
        run()
    return spy.calls


def apply(binding: bindings.Binding, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What generated code does."""
    if binding.form == bindings.FUNCTION:
        return binding.function(*args, **kwargs)
    method = getattr(args[0], binding.name)
    rest = args[1] if binding.form == bindings.SPREAD else args[1:]
    return method(*rest, **kwargs)


def normal(call: Call) -> tuple[Any, list[Any]]:
    """Overload and all arguments in schema order with defaults filled in."""
    func, args, kwargs = call
    values = []
    for i, argument in enumerate(func._schema.arguments):
        if i < len(args):
            value = args[i]
        else:
            value = kwargs.get(argument.name, argument.default_value)
        values.append(list(value) if isinstance(value, (list, tuple)) else value)
    return func, values


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a is b or _same_number(a, b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return _same_number(a, b)
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (a != a and b != b)
    return type(a) is type(b) and bool(a == b)


def _same_number(a: Any, b: Any) -> bool:
    """A Python number given where the schema has a tensor arrives as a new 0-dim tensor."""
    kinds = [x.dtype if isinstance(x, torch.Tensor) else type(x) for x in (a, b)]
    numbers = [x.item() if isinstance(x, torch.Tensor) and x.dim() == 0 else x for x in (a, b)]
    if any(isinstance(x, torch.Tensor) for x in numbers):
        return False
    return kinds[0] == kinds[1] and same(numbers[0], numbers[1])


def check(call: Call) -> str | None:
    """None if the binding of the call's overload makes the same call; else what differs."""
    op, args, kwargs = call
    binding = bindings.binding_for(op, args, kwargs)
    assert binding is not None
    torch.manual_seed(0)
    direct = seen(lambda: op._op(*args, **kwargs))
    torch.manual_seed(0)
    through = seen(lambda: apply(binding, args, kwargs))
    if binding.name == "contiguous" and not through:
        return (
            None  # the method answers by itself where it returns its argument, as the kernel does
        )
    if len(direct) != 1 or len(through) != 1:
        return f"{len(direct)} and {len(through)} calls: {[c[0] for c in through]}"
    (want, want_args), (got, got_args) = normal(direct[0]), normal(through[0])
    if want is not got:
        return f"{got} instead of {want} for {_text(args, kwargs)}"
    if not all(map(same, want_args, got_args)):
        return f"other arguments: {_text(got_args, {})} instead of {_text(want_args, {})}"
    return None


def _text(args: Any, kwargs: Any) -> str:
    def leaf(x: Any) -> Any:
        return f"{x.dtype}{tuple(x.shape)}" if isinstance(x, torch.Tensor) else x

    return str(pytree.tree_map(leaf, (list(args), kwargs)))


def in_table(calls: list[Call]) -> Iterator[Call]:
    return (c for c in calls if bindings.binding_for(*c) is not None)


# -- the database ---------------------------------------------------------------------------------


def _names() -> set[str]:
    ops = [*bindings.TABLE, *bindings.SPREAD_TABLE]
    return {op._schema.name.removeprefix("aten::").rstrip("_") for op in ops}


def _database() -> list[Any]:
    from torch.testing._internal.common_methods_invocations import op_db

    names = _names()
    return [op for op in op_db if op.name.rpartition(".")[2] in names or op.aten_name in names]


@pytest.fixture(scope="module")
def calls() -> list[Call]:
    """Calls of table entries that the database's samples make."""
    found: list[Call] = []
    for info in _database():
        dtype = (
            torch.float32
            if torch.float32 in info.dtypes
            else next(iter(info.dtypes), torch.float32)
        )
        variants = [info.op, info.inplace_variant, info.method_variant]
        for i, sample in enumerate(info.sample_inputs("cpu", dtype, requires_grad=False)):
            if i == SAMPLES:
                break
            for variant in dict.fromkeys(v for v in variants if v is not None):
                args = [sample.input, *sample.args]
                args = pytree.tree_map(
                    lambda x: x.clone() if isinstance(x, torch.Tensor) else x, args
                )
                try:
                    found += in_table(seen(lambda: variant(*args, **sample.kwargs)))  # noqa: B023
                except (RuntimeError, TypeError, ValueError, IndexError):
                    continue  # a sample that has no in-place form
    return found


def by_hand() -> list[Call]:
    """Calls that models make and the database's samples do not."""
    a = torch.ops.aten
    x, i, m = torch.randn(2, 3, 4), torch.tensor([0, 1]), torch.ones(2, 3, 4, dtype=torch.bool)
    w4, im = torch.randn(5, 4), torch.randn(2, 3, 8, 8)
    k = torch.randn(6, 3, 3, 3)
    calls: list[tuple[Any, ...]] = [
        (a.linear.default, (x, w4), {}),
        (a.linear.default, (x, w4, torch.randn(5)), {}),
        (a.add.Tensor, (x, 2), {}),
        (a.add.Tensor, (x, 2.5), {}),
        (a.add.Tensor, (x, x), {"alpha": 2}),
        (a.sub.Tensor, (x, 2), {}),
        (a.mul.Tensor, (x, 2), {}),
        (a.mul.Tensor, (i, 2.5), {}),
        (a.div.Tensor, (x, 8), {}),
        (a.div.Tensor_mode, (x, 8), {"rounding_mode": "floor"}),
        (a.rsub.Scalar, (x, 1.0), {}),
        (a.rsub.Scalar, (x, 1, 2), {}),
        (a.pow.Tensor_Scalar, (x, 2), {}),
        (a.pow.Scalar, (10000.0, x), {}),
        (a.floor_divide.default, (i, 2), {}),
        (
            a.conv1d.default,
            (torch.randn(1, 3, 9), torch.randn(2, 3, 3), None, [1], [1], [1], 1),
            {},
        ),
        (a.conv2d.default, (im, k), {}),
        (a.conv2d.default, (im, k, None, [1, 1], [1, 1]), {}),
        (
            a.conv2d.default,
            (im, torch.randn(3, 1, 3, 3), torch.randn(3), [2, 2], [0, 0], [1, 1], 3),
            {},
        ),
        (a.conv3d.default, (torch.randn(1, 3, 4, 4, 4), torch.randn(2, 3, 2, 2, 2)), {}),
        (
            a.batch_norm.default,
            (im, None, None, torch.zeros(3), torch.ones(3), False, 0.1, 1e-5, True),
            {},
        ),
        (a.layer_norm.default, (x, [4], torch.ones(4), torch.zeros(4), 1e-12, True), {}),
        (a.layer_norm.default, (x, [4]), {}),
        (a.group_norm.default, (im, 3, torch.ones(3), torch.zeros(3), 1e-5, True), {}),
        (a.embedding.default, (w4, i), {}),
        (a.embedding.default, (w4, i, 0), {}),
        (a.embedding.default, (w4, i, 0, True), {}),
        (a.dropout.default, (x, 0.0, False), {}),
        (a.dropout.default, (x, 0.5, True), {}),
        (a.gelu.default, (x,), {}),
        (a.gelu.default, (x,), {"approximate": "tanh"}),
        (a.softmax.int, (x, -1), {}),
        (a.softmax.int, (x, -1, torch.float64), {}),
        (a.scaled_dot_product_attention.default, (im, im, im), {}),
        (
            a.scaled_dot_product_attention.default,
            (im, im, im, m[:, :, :1, None].expand(2, 3, 1, 8)[:, :, :, :8]),
            {},
        ),
        (a.scaled_dot_product_attention.default, (im, im, im, None, 0.0, True), {"scale": 0.5}),
        (a.scaled_dot_product_attention.default, (im, im, im), {"enable_gqa": True}),
        (a.to.dtype, (x, torch.float64), {}),
        (a.to.dtype, (x, torch.float32, False, True), {}),
        (a.view.default, (x, [2, -1]), {}),
        (a.view.default, (x, (24,)), {}),
        (a.view.default, (x[0, 0, 0], []), {}),
        (a.reshape.default, (x, [-1]), {}),
        (a.permute.default, (x, [0, 2, 1]), {}),
        (a.expand.default, (x, [5, 2, 3, 4]), {}),
        (a.expand.default, (x, [-1, 3, 4]), {"implicit": True}),
        (a.repeat.default, (x, [2, 1, 1]), {}),
        (a.contiguous.default, (x.mT,), {}),
        (a.contiguous.default, (x,), {}),
        (a.contiguous.default, (im,), {"memory_format": torch.channels_last}),
        (a.clone.default, (im,), {"memory_format": torch.contiguous_format}),
        (a.transpose.int, (x, -1, -2), {}),
        (a.select.int, (x, 1, -1), {}),
        (a.split.Tensor, (x, 2, -1), {}),
        (a.split_with_sizes.default, (x, [1, 3], -1), {}),
        (a.chunk.default, (x, 2, -1), {}),
        (a.unbind.int, (x,), {}),
        (a.cat.default, ([x, x],), {}),
        (a.cat.default, ([x, x], -1), {}),
        (a.stack.default, ([x, x], 1), {}),
        (a.sum.dim_IntList, (x, [1]), {}),
        (a.sum.dim_IntList, (x, [1, 2], True), {"dtype": torch.float64}),
        (a.mean.dim, (x, [-1], True), {}),
        (a.max.dim, (x, 1), {}),
        (a.masked_fill.Scalar, (x, m, float("-inf")), {}),
        (a.masked_fill_.Scalar, (x.clone(), m, 0), {}),
        (a.where.self, (m, x, x), {}),
        (a.where.ScalarOther, (m, x, 0.0), {}),
        (a.where.ScalarSelf, (m, 1.0, x), {}),
        (a.clamp.default, (x, 0), {}),
        (a.clamp.default, (x, None, 1.0), {}),
        (a.max_pool2d.default, (im, [3, 3], [2, 2], [1, 1]), {}),
        (a.adaptive_avg_pool2d.default, (im, [1, 1]), {}),
        (a.avg_pool2d.default, (im, [2, 2], [2, 2], [0, 0], False, True), {}),
        (a.pad.default, (x, [1, 1]), {}),
        (a.pad.default, (x, [1, 1], "constant", 2.0), {}),
        (a.add_.Tensor, (i.clone(), 1), {}),
        (a.add_.Tensor, (x.clone(), x), {"alpha": 0.5}),
        (a.copy_.default, (x.clone(), x), {}),
        (a.item.default, (i[0],), {}),
        (a.eq.Scalar, (i, 0), {}),
        (a.gt.Tensor, (x, x), {}),
        (a.topk.default, (x, 2), {}),
        (a.gather.default, (x, 1, m.long()), {}),
        (a.hardtanh.default, (x, 0.0, 6.0), {}),
        (a.prelu.default, (x, torch.ones(1)), {}),
        (a.rms_norm.default, (x, [4], torch.ones(4), 1e-6), {}),
        (a.norm.ScalarOpt_dim, (x, 2, [1], True), {}),
        (a.feature_dropout.default, (im, 0.5, False), {}),
        (a.movedim.int, (x, 0, -1), {}),
        (a.swapaxes.default, (x, 0, -1), {}),
        (a.scatter.value, (x, 1, m.long(), 2.0), {}),
        (a.scatter_.value, (x.clone(), 1, m.long(), 2.0), {}),
        (a.reflection_pad1d.default, (x, [1, 1]), {}),
        (a.reflection_pad2d.default, (im, [1, 1, 2, 2]), {}),
        (a.replication_pad2d.default, (im, [1, 1, 2, 2]), {}),
        (a.type_as.default, (x, i), {}),
        (a.fill_.Tensor, (x.clone(), torch.tensor(2.0)), {}),
        (a.clamp_.default, (x.clone(), 0, None), {}),
        (a.clamp_min.default, (x, 0), {}),
        (a.clamp_max.default, (x, 0.5), {}),
        (a.norm.ScalarOpt_dim, (x, 2, [1], True), {}),
        (a.feature_dropout.default, (im, 0.5, False), {}),
        (a.movedim.int, (x, 0, -1), {}),
        (a.swapaxes.default, (x, 0, -1), {}),
        (a.scatter.value, (x, 1, m.long(), 2.0), {}),
        (a.scatter_.value, (x.clone(), 1, m.long(), 2.0), {}),
        (a.reflection_pad1d.default, (x, [1, 1]), {}),
        (a.reflection_pad2d.default, (im, [1, 1, 2, 2]), {}),
        (a.replication_pad2d.default, (im, [1, 1, 2, 2]), {}),
        (a.type_as.default, (x, i), {}),
        (a.fill_.Tensor, (x.clone(), torch.tensor(2.0)), {}),
        (a.clamp_.default, (x.clone(), 0, None), {}),
        (a.clamp_min.default, (x, 0), {}),
        (a.clamp_max.default, (x, 0.5), {}),
        (a.norm.ScalarOpt_dim, (x, 2, [1], True), {}),
        (a.feature_dropout.default, (im, 0.5, False), {}),
        (a.movedim.int, (x, 0, -1), {}),
        (a.swapaxes.default, (x, 0, -1), {}),
        (a.scatter.value, (x, 1, m.long(), 2.0), {}),
        (a.scatter_.value, (x.clone(), 1, m.long(), 2.0), {}),
        (a.reflection_pad1d.default, (x, [1, 1]), {}),
        (a.reflection_pad2d.default, (im, [1, 1, 2, 2]), {}),
        (a.replication_pad2d.default, (im, [1, 1, 2, 2]), {}),
        (a.type_as.default, (x, i), {}),
        (a.fill_.Tensor, (x.clone(), torch.tensor(2.0)), {}),
        (a.clamp_.default, (x.clone(), 0, None), {}),
        (a.clamp_min.default, (x, 0), {}),
        (a.clamp_max.default, (x, 0.5), {}),
    ]
    for op in (a.remainder, a.fmod, a.ne, a.lt, a.le, a.gt, a.ge):
        calls += [(op.Scalar, (x, 2), {}), (op.Scalar, (i, 2.5), {})]
    for op in (a.relu_, a.hardtanh_, a.hardswish_, a.relu6_, a.zero_):
        calls.append((op.default, (x.clone(),), {}))
    return [(op, args, kwargs) for op, args, kwargs in calls]


@pytest.mark.parametrize("call", by_hand(), ids=lambda c: str(c[0]).removeprefix("aten."))
def test_common_calls(call: Call) -> None:
    assert check(call) is None


def test_calls_of_the_database(calls: list[Call]) -> None:
    wrong = {str(call[0]): found for call in calls if (found := check(call))}
    assert not wrong, "\n".join(f"{op}: {text}" for op, text in wrong.items())


def test_every_entry_is_tried(calls: list[Call]) -> None:
    """An entry that no call reaches is not known to be right and does not belong in the table."""
    tried = {call[0] for call in [*calls, *by_hand()]}
    untried = [str(op) for op in (*bindings.TABLE, *bindings.SPREAD_TABLE) if op not in tried]
    assert not untried, " ".join(untried)


def test_a_memory_format_by_position_is_no_call_of_a_binding() -> None:
    args = (torch.ones(3), torch.int32, False, False, torch.contiguous_format)
    assert bindings.binding_for(torch.ops.aten.to.dtype, args, {}) is None
