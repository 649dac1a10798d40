"""Elementwise rules against the real kernels: layouts, dtypes, in-place checks, symbolic sizes."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from tests.fake.checking import check, check_error, layouts_of

aten = torch.ops.aten
SIZES = (2, 3, 4, 5)
DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64)


def random_operand(rng: random.Random, sizes: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor that broadcasts to ``sizes`` from a random permutation, slice and expansion."""
    kept = [1 if rng.random() < 0.2 else s for s in sizes]
    order = list(range(len(kept)))
    rng.shuffle(order)
    base = torch.zeros([kept[d] for d in order], dtype=dtype)
    if rng.random() < 0.3 and base.dim():
        base = torch.zeros([*base.shape[:-1], base.shape[-1] * 2], dtype=dtype)[..., ::2]
    inverse = sorted(range(len(order)), key=order.__getitem__)
    t = base.permute(inverse)
    if rng.random() < 0.25:
        t = t.expand(sizes)
    for _ in range(rng.choice((0, 0, 1, 2))):
        if t.dim() and t.shape[0] == 1:
            t = t[0]
    return t


@pytest.mark.parametrize("seed", range(4))
def test_random_layouts(seed: int) -> None:
    """The strides of one, two and three operand kernels over random strides and broadcasts."""
    rng = random.Random(seed)
    for _ in range(150):
        sizes = tuple(rng.choice((1, 2, 3, 4)) for _ in range(rng.randint(0, 5)))
        a, b, c = (
            random_operand(rng, sizes, rng.choice((torch.float32, torch.float32, torch.int64)))
            for _ in range(3)
        )
        check(aten.exp.default, a)
        check(aten.neg.default, b)
        check(aten.clone.default, c)
        check(aten.add.Tensor, a, b)
        check(aten.div.Tensor, a, c)
        check(aten.lt.Tensor, a, b)
        check(aten.mul.Tensor, a, 2)
        check(aten.where.self, a > 0, b, c)
        check(aten.addcmul.default, a, b, c)
        check(aten.lerp.Tensor, a.float(), b.float(), c.float())
        check(aten.masked_fill.Scalar, a, b > 0, 1)


ONE_OPERAND = (
    aten.neg, aten.exp, aten.sigmoid, aten.tanh, aten.abs, aten.isnan, aten.logical_not, aten.gelu,
    aten.silu, aten.relu, aten.square, aten.rsqrt, aten.hardswish, aten.hardtanh, aten.relu6,
    aten.leaky_relu, aten.elu, aten.softplus, aten.mish, aten.selu, aten.celu, aten.log_sigmoid,
    aten.floor, aten.erf, aten.log1p, aten.hardsigmoid, aten.angle, aten.nan_to_num, aten.sign,
    aten.bitwise_not, aten.conj_physical, aten.frexp, aten.zero, aten.threshold,
)  # fmt: skip


def accepts(op: torch._ops.OpOverload, *args: object) -> bool:
    """Whether the real operator takes these arguments (dtypes differ in what they support)."""
    try:
        op(*args)
    except (RuntimeError, TypeError):
        return False
    return True


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_operand(dtype: torch.dtype) -> None:
    """dtype and layout of functions of one tensor, without a guard on any size."""
    for packet, (layout, x) in itertools.product(ONE_OPERAND, layouts_of(SIZES, dtype).items()):
        op = getattr(packet, packet.overloads()[0] if packet is aten.frexp else "default")
        args = (x, 0.5, 0.0) if packet is aten.threshold else (x,)
        if packet is aten.zero or not accepts(op, *args):
            continue
        outcome = check(op, *args)
        assert not outcome.guards, (op, layout)


TWO_OPERANDS = (
    aten.add, aten.sub, aten.mul, aten.div, aten.floor_divide, aten.remainder, aten.fmod, aten.pow,
    aten.eq, aten.lt, aten.logical_and, aten.maximum, aten.fmax, aten.atan2, aten.bitwise_and,
    aten.copysign, aten.xlogy, aten.hypot, aten.__and__, aten.true_divide, aten.rsub,
)  # fmt: skip


@pytest.mark.parametrize("packet", TWO_OPERANDS, ids=str)
def test_two_operands_promote(packet: torch._ops.OpOverloadPacket) -> None:
    """All pairs of dtypes, of tensors with dims, 0-dim tensors and numbers."""
    dtypes = (*DTYPES, torch.float64, torch.float16, torch.int32)
    name = "Tensor_Tensor" if packet is aten.pow else "Tensor"
    op = getattr(packet, name if name in packet.overloads() else "default")
    for da, db in itertools.product(dtypes, dtypes):
        pairs = [
            (torch.ones(2, 3, dtype=da), torch.ones(3, dtype=db)),
            (torch.ones(2, 3, dtype=da), torch.ones((), dtype=db)),
            (torch.ones((), dtype=da), torch.ones(3, dtype=db)),
        ]
        for a, b in pairs:
            if accepts(op, a, b):
                assert not check(op, a, b).guards
    for da, number in itertools.product(dtypes, (True, 2, 2.5, 1j)):
        a = torch.ones(2, 3, dtype=da)
        if op.overloadpacket is not aten.pow and accepts(op, a, number):
            check(op, a, number)


def test_broadcast_of_a_symbol_beside_one_asks_nothing() -> None:
    """A size of 1 in one operand takes the other's symbol."""
    outcome = check(aten.add.Tensor, torch.ones(4, 1, 3), torch.ones(5, 1))
    assert outcome.symbolic and not outcome.guards


def test_unequal_sizes_are_refused() -> None:
    """The text is eager's."""
    error = check_error(aten.add.Tensor, torch.ones(3, 4), torch.ones(3, 5))
    assert "must match the size of tensor b (5) at non-singleton dimension 1" in str(error)


IN_PLACE = (
    (aten.add_.Tensor, 2), (aten.mul_.Tensor, 2), (aten.sub_.Tensor, 2), (aten.relu_.default, 1),
    (aten.clamp_.default, 1), (aten.copy_.default, 2), (aten.fill_.Scalar, 1),
    (aten.zero_.default, 1), (aten.exp_.default, 1), (aten.logical_and_.default, 2),
    (aten.eq_.Tensor, 2), (aten.addcmul_.default, 3),
)  # fmt: skip


@pytest.mark.parametrize(("op", "tensors"), IN_PLACE, ids=str)
def test_in_place_returns_its_argument(op: torch._ops.OpOverload, tensors: int) -> None:
    """The very argument comes back; other operands broadcast into it."""
    extra = {aten.clamp_.default: (0.0, 1.0), aten.fill_.Scalar: (1,)}.get(op, ())
    for x in (torch.rand(4, 3), torch.rand(3, 4).t(), torch.rand(4, 6)[:, ::2]):
        outcome = check(op, x, *[torch.rand(3) for _ in range(tensors - 1)], *extra)
        assert not outcome.guards


def test_in_place_refusals() -> None:
    """A result that does not fit the target, by shape or by dtype."""
    shape = check_error(aten.add_.Tensor, torch.ones(3), torch.ones(2, 3))
    assert "doesn't match the broadcast shape" in str(shape)
    check_error(aten.add_.Tensor, torch.ones(1, 3), torch.ones(2, 3))
    dtype = check_error(aten.add_.Tensor, torch.ones(3, dtype=torch.int64), 1.5)
    assert str(dtype) == "result type Float can't be cast to the desired output type Long"
    check_error(aten.div_.Tensor, torch.ones(3, dtype=torch.int64), 2)
    check_error(aten.exp_.default, torch.ones(3, dtype=torch.int64))


def test_where_and_masks() -> None:
    """Branches are promoted; a mask may be wider than the tensor it fills."""
    mask = torch.rand(4, 1) > 0.5
    for a, b in (
        (torch.ones(3), torch.ones(3, dtype=torch.float64)),
        (torch.ones(4, 3), torch.ones((), dtype=torch.float64)),
        (torch.ones(4, 3, dtype=torch.int64), torch.ones(1, 3)),
    ):
        check(aten.where.self, mask, a, b)
    check(aten.where.ScalarOther, mask, torch.ones(3), 2.5)
    check(aten.where.ScalarSelf, mask, 2, torch.ones(3))
    check(aten.where.Scalar, mask, 1, 0.5)
    check(aten.masked_fill.Scalar, torch.ones(3), mask, -1.0)
    check(aten.masked_fill.Tensor, torch.ones(4, 3).t().contiguous().t(), mask, torch.tensor(-1.0))
    check(aten.masked_fill_.Scalar, torch.ones(4, 3), mask, -1.0)


def test_glu_and_prelu() -> None:
    """A halved dim must be even, which a symbolic size has to promise."""
    for x in layouts_of((2, 4, 6, 8)).values():
        for dim in (1, -1):
            check(aten.glu.default, x, dim)
        check(aten.prelu.default, x, torch.ones(4))
        check(aten.prelu.default, x, torch.ones(1))
    assert "Halving dimension must be even" in str(check_error(aten.glu.default, torch.ones(3)))
