"""The copying forms of views: ``view_copy``, ``select_copy`` and their kin.

Each is the view of the same name, copied into row-major memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import RULES, rule
from stillframe.fake.rules import reshaping, splitting, striding, views  # noqa: F401
from stillframe.fake.rules.elementwise import contiguous
from stillframe.fake.rules.reshaping import infer_sizes
from stillframe.fake.tensor import FakeTensor

aten = torch.ops.aten


def _copying(view_rule: Callable[..., Any]) -> Callable[..., Any]:
    def copied(ctx: RuleContext, x: FakeTensor, *args: Any, **kwargs: Any) -> Any:
        made = view_rule(ctx, x, *args, **kwargs)
        if isinstance(made, FakeTensor):
            return contiguous(ctx, made.sizes, made.dtype, made.device)
        return [contiguous(ctx, t.sizes, t.dtype, t.device) for t in made]

    return copied


def _register(names: str) -> None:
    for name in names.split():
        copies = getattr(aten, f"{name}_copy")
        for overload in copies.overloads():
            if overload == "out" or overload.endswith("_out"):
                continue
            if getattr(copies, overload) in RULES:
                continue
            view = getattr(getattr(aten, name), overload)
            rule(getattr(copies, overload))(_copying(RULES[view]))


@rule(aten.view_copy.default)
def view_copy(ctx: RuleContext, x: FakeTensor, size: Sequence[Any]) -> FakeTensor:
    """Unlike the view, also of memory that no view of these sizes fits."""
    return contiguous(ctx, infer_sizes(ctx, x.sizes, size), x.dtype, x.device)


_register(
    "as_strided diagonal expand narrow permute select slice split split_with_sizes squeeze t "
    "transpose unbind unfold unsqueeze view view_as_real view_as_complex"
)
