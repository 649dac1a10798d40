"""Gradients of ``flex_attention``.

torch's operator for the backward pass knows the gradients of query, key and value. A tensor that
the score function looks into gets the sum over all scores, so the function is mapped over
all indices and differentiated: ordinary operators, which the trace records.

With scores s, changed scores c, weights p = softmax(c), the output o = p v and the logarithm l of
the sum of exp(c) to the base 2, the gradient of c is p * (g_o v' - sum(o * g_o) + g_l / ln 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from stillframe.errors import NotSupported
from stillframe.trace import higher_order_grad as grad
from stillframe.trace.higher_order import record

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder


@dataclass(frozen=True)
class Call:
    """One call of attention, with its results and the gradients of these.

    Attributes:
        score, mask: the functions as graphs.
        score_buffers, mask_buffers: what they look into.
        working: the dtype of scores.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    scale: float
    score: torch.fx.GraphModule
    mask: torch.fx.GraphModule
    score_buffers: Sequence[Any]
    mask_buffers: Sequence[Any]
    out: torch.Tensor
    logarithms: torch.Tensor
    of_out: torch.Tensor
    of_logarithms: torch.Tensor
    working: torch.dtype

    def of_tensors(
        self, recorder: Recorder, block: Sequence[Any], options: dict[str, Any]
    ) -> Sequence[torch.Tensor]:
        """The gradients of query, key and value, by one node."""
        buffers = [
            tuple(t.detach() if isinstance(t, torch.Tensor) else t for t in given)
            for given in (self.score_buffers, self.mask_buffers)
        ]
        call_args = (
            self.query, self.key, self.value, self.out, self.logarithms, self.of_out,
            self.of_logarithms, self.score, None, (*block, self.mask), self.scale, dict(options),
            *buffers,
        )  # fmt: skip
        op = torch.ops.higher_order.flex_attention_backward
        found: Sequence[torch.Tensor] = record(recorder, op, call_args, {})[:3]
        return found

    def of_buffers(self, wanted: Sequence[int]) -> list[torch.Tensor]:
        """The gradients of the score buffers at the places ``wanted``.

        Raises:
            NotSupported: gradients of these gradients are asked for.
        """
        if torch.is_grad_enabled():
            raise NotSupported(
                "Second derivatives of flex_attention by a tensor that its score_mod looks into.",
                hints=["write the attention out: softmax(q @ k.mT + bias) @ v"],
            )
        query, key, value = self._alike()
        scores = (query @ key.mT) * self.scale
        indices = [torch.arange(size, device=scores.device) for size in scores.shape]
        buffers = list(self.score_buffers)
        for i in wanted:
            buffers[i] = buffers[i].detach().requires_grad_()
        with torch.enable_grad():
            mapped = _over_indices(grad.replayed(self.score), 1, len(buffers))
            changed = mapped(scores, *indices, *buffers)
        seen = _over_indices(self.mask, 0, len(self.mask_buffers))(*indices, *self.mask_buffers)
        flow = self._of_changed(changed.detach(), seen, value)
        leaves = [buffers[i] for i in wanted]
        if not changed.requires_grad:
            return [torch.zeros_like(leaf) for leaf in leaves]
        found = torch.autograd.grad(
            changed, leaves, flow.to(changed.dtype), allow_unused=True, materialize_grads=True
        )
        return list(found)

    def _alike(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query, key and value with one number of heads and one batch, in the dtype of scores."""
        batch, heads = self.query.shape[:2]
        groups = heads // self.key.shape[1]
        key, value = (
            t.repeat_interleave(groups, dim=1).expand(batch, -1, -1, -1).to(self.working)
            for t in (self.key, self.value)
        )
        return self.query.to(self.working), key, value

    def _of_changed(
        self, changed: torch.Tensor, seen: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """The gradient of the changed scores; zero where the mask hides them."""
        logarithms = self.logarithms.unsqueeze(-1)
        weights = torch.exp(changed - logarithms * math.log(2))
        out, of_out = self.out.to(self.working), self.of_out.to(self.working)
        flow = of_out @ value.mT - (out * of_out).sum(-1, keepdim=True)
        flow = flow + self.of_logarithms.unsqueeze(-1) / math.log(2)
        hidden = ~seen | (logarithms == -math.inf)  # a row that is hidden as a whole has no sum
        return torch.where(hidden, 0.0, weights * flow)


def _over_indices(function: Callable[..., Any], first: int, buffers: int) -> Callable[..., Any]:
    """A function of ``first`` scores, four indices and ``buffers`` tensors, for all indices."""
    for place in (3, 2, 1, 0):
        at = [0] * first + [0 if i == place else None for i in range(4)] + [None] * buffers
        function = torch.vmap(function, in_dims=tuple(at))
    return function
