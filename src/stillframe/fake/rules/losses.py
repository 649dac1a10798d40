"""Loss functions: elementwise, then nothing, a mean or a sum."""

from __future__ import annotations

from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.elementwise import (
    as_float,
    contiguous,
    elementwise,
    fit,
    mapped,
    promoted,
    real_of,
)
from stillframe.fake.rules.sizing import must, must_match
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size

aten = torch.ops.aten
Maybe = FakeTensor | None
NONE, MEAN, SUM = range(3)


def reduced_loss(
    ctx: RuleContext, operands: tuple[Maybe, ...], reduction: int, dtype: torch.dtype | None = None
) -> FakeTensor:
    """The elementwise loss of the given operands, or a 0-dim tensor where it is reduced."""
    tensors = [t for t in operands if t is not None]
    if dtype is None:
        dtype = tensors[0].dtype
        if any(t.dtype is not dtype for t in tensors):
            dtype = ctx.promote(*tensors)
    if reduction == NONE:
        return elementwise(ctx, tensors, dtype, dtype)
    sizes = tensors[0].sizes
    if any(t.sizes != sizes for t in tensors):
        ctx.broadcast(*[t.sizes for t in tensors])
    return contiguous(ctx, (), dtype, tensors[0].device)


@rule(
    aten.mse_loss.default,
    aten.smooth_l1_loss.default,
    aten.soft_margin_loss.default,
)
def pointwise_loss(
    ctx: RuleContext, x: FakeTensor, target: FakeTensor, reduction: int = MEAN, *_: Any
) -> FakeTensor:
    return reduced_loss(ctx, (x, target), reduction)


@rule(aten.huber_loss.default)
def huber_loss(
    ctx: RuleContext, x: FakeTensor, target: FakeTensor, reduction: int = MEAN, delta: Any = 1.0
) -> FakeTensor:
    must(ctx, delta > 0, "huber_loss does not support non-positive values for delta.")
    return reduced_loss(ctx, (x, target), reduction)


@rule(aten.l1_loss.default)
def l1_loss(
    ctx: RuleContext, x: FakeTensor, target: FakeTensor, reduction: int = MEAN
) -> FakeTensor:
    """The absolute difference, which is real for complex numbers."""
    return reduced_loss(ctx, (x, target), reduction, real_of(promoted(ctx, x, target)))


@rule(aten.kl_div.default)
def kl_div(
    ctx: RuleContext,
    x: FakeTensor,
    target: FakeTensor,
    reduction: int = MEAN,
    *,
    log_target: bool = False,
) -> FakeTensor:
    """``target * (log(target) - x)``: the target's layout comes first."""
    return reduced_loss(ctx, (target, x), reduction)


@rule(aten.binary_cross_entropy.default)
def binary_cross_entropy(
    ctx: RuleContext,
    x: FakeTensor,
    target: FakeTensor,
    weight: Maybe = None,
    reduction: int = MEAN,
) -> FakeTensor:
    return reduced_loss(ctx, (x, target), reduction)


@rule(aten.binary_cross_entropy_with_logits.default)
def binary_cross_entropy_with_logits(
    ctx: RuleContext,
    x: FakeTensor,
    target: FakeTensor,
    weight: Maybe = None,
    pos_weight: Maybe = None,
    reduction: int = MEAN,
) -> FakeTensor:
    """Starts from ``1 - target`` and goes on in place, so dtype and layout are the target's."""
    for operand in (x, weight, pos_weight):
        if operand is not None and operand.sizes != target.sizes:
            fit(ctx, operand.sizes, target.sizes)
    if reduction == NONE:
        return mapped(ctx, target)
    return contiguous(ctx, (), target.dtype, target.device)


@rule(aten.hinge_embedding_loss.default)
def hinge_embedding_loss(
    ctx: RuleContext, x: FakeTensor, target: FakeTensor, margin: float = 1.0, reduction: int = MEAN
) -> FakeTensor:
    """Chosen by comparisons of the target, whose layout therefore comes first."""
    return reduced_loss(ctx, (target, x), reduction)


@rule(aten.margin_ranking_loss.default)
def margin_ranking_loss(
    ctx: RuleContext,
    input1: FakeTensor,
    input2: FakeTensor,
    target: FakeTensor,
    margin: float = 0.0,
    reduction: int = MEAN,
) -> FakeTensor:
    dtype = as_float(ctx.promote(input1, input2, target))
    return reduced_loss(ctx, (target, input1, input2), reduction, dtype)


@rule(aten.poisson_nll_loss.default)
def poisson_nll_loss(
    ctx: RuleContext,
    x: FakeTensor,
    target: FakeTensor,
    log_input: bool,
    full: bool,
    eps: float,
    reduction: int,
) -> FakeTensor:
    return reduced_loss(ctx, (x, target), reduction, as_float(ctx.promote(x, target)))


# -- classes ---------------------------------------------------------------------------------------


@rule(aten.cross_entropy_loss.default)
def cross_entropy_loss(
    ctx: RuleContext,
    x: FakeTensor,
    target: FakeTensor,
    weight: Maybe = None,
    reduction: int = MEAN,
    ignore_index: Size = -100,
    label_smoothing: float = 0.0,
) -> FakeTensor:
    """Log-softmax over the class dim, then the negative likelihood of the target."""
    return _class_loss(ctx, x, target, reduction)


@rule(aten.nll_loss_nd.default, aten.nll_loss.default, aten.nll_loss2d.default)
def nll_loss(
    ctx: RuleContext,
    x: FakeTensor,
    target: FakeTensor,
    weight: Maybe = None,
    reduction: int = MEAN,
    ignore_index: Size = -100,
) -> FakeTensor:
    return _class_loss(ctx, x, target, reduction)


def _class_loss(ctx: RuleContext, x: FakeTensor, target: FakeTensor, reduction: int) -> FakeTensor:
    """One loss for each element of ``target``; targets may be probabilities like ``x``."""
    class_dim = 1 if len(x.sizes) > 1 else 0
    sizes = x.sizes[:class_dim] + x.sizes[class_dim + 1 :]
    if len(target.sizes) == len(sizes):
        for have, want in zip(target.sizes, sizes, strict=True):
            if have is not want:
                ctx.require_same(
                    want,
                    have,
                    f"Expected input batch_size ({want}) to match target batch_size ({have}).",
                )
    if reduction == NONE:
        return contiguous(ctx, sizes, x.dtype, x.device)
    return contiguous(ctx, (), x.dtype, x.device)


@rule(aten.nll_loss_forward.default, aten.nll_loss2d_forward.default)
def nll_loss_forward(
    ctx: RuleContext,
    x: FakeTensor,
    target: FakeTensor,
    weight: Maybe,
    reduction: int,
    ignore_index: Size,
) -> tuple[FakeTensor, FakeTensor]:
    """The loss and the total weight."""
    loss = _class_loss(ctx, x, target, reduction)
    return loss, contiguous(ctx, (), x.dtype, x.device)


@rule(aten.multi_margin_loss.default)
def multi_margin_loss(
    ctx: RuleContext,
    x: FakeTensor,
    target: FakeTensor,
    p: Any = 1,
    margin: Any = 1,
    weight: Maybe = None,
    reduction: int = MEAN,
) -> FakeTensor:
    """The target holds a class for each row, the weight a number for each class."""
    rows, classes = _rows_and_classes(ctx, x)
    given = target.sizes or (1,)
    must_match(ctx, given, (rows,), f"expected target size [{rows}], got {list(target.sizes)}")
    _expect_long(target)
    if weight is not None:
        must(ctx, p == 1 or p == 2, "only p == 1 and p == 2 supported")
        given = (ctx.numel(weight.sizes),)
        must_match(ctx, given, (classes,), f"inconsistent weight size, expected {classes}")
    sizes = target.sizes if reduction == NONE else ()
    return contiguous(ctx, sizes, x.dtype, x.device)


def _rows_and_classes(ctx: RuleContext, x: FakeTensor) -> tuple[Size, Size]:
    """The two dims of a matrix; a vector is a matrix of one row."""
    rank = len(x.sizes)
    must(ctx, rank <= 2, f"Expected a vector or a matrix, but got: {list(x.sizes)}")
    if rank:
        message = "Expected non-empty vector or matrix with optional 0-dim batch size"
        must(ctx, x.sizes[-1] != 0, f"{message}, but got: {list(x.sizes)}")
    return (x.sizes[0] if rank == 2 else 1), (x.sizes[-1] if rank else 1)


def _expect_long(target: FakeTensor) -> None:
    if target.dtype is not torch.int64:
        raise RuntimeError(f"expected scalar type Long but found {target.dtype}")


@rule(aten.multilabel_margin_loss.default)
def multilabel_margin_loss(
    ctx: RuleContext, x: FakeTensor, target: FakeTensor, reduction: int = MEAN
) -> FakeTensor:
    """The target has the input's sizes: the classes of each row, ended by -1."""
    _rows_and_classes(ctx, x)
    message = f"inconsistent target size: {target.sizes} for input of size: {x.sizes}"
    must_match(ctx, target.sizes or (1,), x.sizes or (1,), message)
    _expect_long(target)
    sizes = target.sizes[:-1] if reduction == NONE else ()
    return contiguous(ctx, sizes, x.dtype, x.device)


@rule(aten.multilabel_margin_loss_forward.default)
def multilabel_margin_loss_forward(
    ctx: RuleContext, x: FakeTensor, target: FakeTensor, reduction: int
) -> tuple[FakeTensor, FakeTensor]:
    """The loss, and for each class whether it is a target, as a number."""
    loss = multilabel_margin_loss(ctx, x, target, reduction)
    return loss, contiguous(ctx, target.sizes, x.dtype, x.device)


@rule(aten.ctc_loss.IntList, aten.ctc_loss.Tensor)
def ctc_loss(
    ctx: RuleContext,
    log_probs: FakeTensor,
    targets: FakeTensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: int = MEAN,
    zero_infinity: bool = False,
) -> FakeTensor:
    """One loss for each sequence of the batch; ``log_probs`` is ``(time, batch, classes)``."""
    batched = len(log_probs.sizes) == 3
    _check_ctc(ctx, log_probs, targets, input_lengths, target_lengths, blank)
    sizes = log_probs.sizes[1:2] if batched and reduction == NONE else ()
    return contiguous(ctx, sizes, log_probs.dtype, log_probs.device)


@rule(aten._ctc_loss.default, aten._ctc_loss.Tensor)
def ctc_loss_forward(
    ctx: RuleContext,
    log_probs: FakeTensor,
    targets: FakeTensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    zero_infinity: bool = False,
) -> tuple[FakeTensor, FakeTensor]:
    """The losses, and the table of partial sums: as wide as the longest target needs."""
    if len(log_probs.sizes) != 3:
        raise RuntimeError("log_probs must have 3 dimensions: time, batch, classes")
    if targets.dtype not in (torch.int32, torch.int64):
        raise RuntimeError(f"targets must be int32 or int64, got {targets.dtype}")
    _check_ctc(ctx, log_probs, targets, input_lengths, target_lengths, blank)
    time, batch, _ = log_probs.sizes
    width: Any
    if isinstance(target_lengths, FakeTensor):
        width = ctx.unbacked(1)
    else:
        width = 2 * max(target_lengths, default=0) + 1
    losses = contiguous(ctx, (batch,), log_probs.dtype, log_probs.device)
    return losses, contiguous(ctx, (batch, time, width), log_probs.dtype, log_probs.device)


def _check_ctc(
    ctx: RuleContext,
    log_probs: FakeTensor,
    targets: FakeTensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int,
) -> None:
    """Plain lengths are one for each sequence; the kernel also looks at those in tensors."""
    if not log_probs.dtype.is_floating_point:
        raise RuntimeError(f"log_probs must be floating-point, got {log_probs.dtype}")
    classes = log_probs.sizes[-1]
    must(ctx, 0 <= blank, "blank must be in label range")
    must(ctx, blank < classes, "blank must be in label range")
    if len(log_probs.sizes) != 3:
        return
    time, batch, _ = log_probs.sizes
    for lengths in (input_lengths, target_lengths):
        if isinstance(lengths, FakeTensor):
            ctx.env.may_raise = True
        else:
            must_match(ctx, (len(lengths),), (batch,), "there must be one length per sequence")
    if not isinstance(input_lengths, FakeTensor) and input_lengths:
        longest = max(input_lengths)
        must(ctx, longest <= time, f"input_lengths must be at most {time}, got {longest}")


@rule(aten._ctc_loss_backward.default, aten._ctc_loss_backward.Tensor)
def ctc_loss_backward(
    ctx: RuleContext, grad: FakeTensor, log_probs: FakeTensor, *_: Any
) -> FakeTensor:
    return contiguous(ctx, log_probs.sizes, log_probs.dtype, log_probs.device)


@rule(aten.cosine_embedding_loss.default)
def cosine_embedding_loss(
    ctx: RuleContext,
    input1: FakeTensor,
    input2: FakeTensor,
    target: FakeTensor,
    margin: float = 0.0,
    reduction: int = MEAN,
) -> FakeTensor:
    dtype = as_float(ctx.promote(input1, input2))
    if reduction != NONE:
        return contiguous(ctx, (), dtype, input1.device)
    return contiguous(ctx, target.sizes, dtype, input1.device)


@rule(aten.triplet_margin_loss.default)
def triplet_margin_loss(
    ctx: RuleContext,
    anchor: FakeTensor,
    positive: FakeTensor,
    negative: FakeTensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: int = MEAN,
) -> FakeTensor:
    dtype = real_of(as_float(ctx.promote(anchor, positive, negative)))
    if not len(anchor.sizes) == len(positive.sizes) == len(negative.sizes):
        raise RuntimeError(
            "The anchor, positive, and negative tensors are expected to have the same number of "
            "dimensions"
        )
    sizes = ctx.broadcast(anchor.sizes, positive.sizes, negative.sizes)[:-1]
    if reduction != NONE:
        return contiguous(ctx, (), dtype, anchor.device)
    return contiguous(ctx, sizes, dtype, anchor.device)
