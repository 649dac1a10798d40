"""Check the shape rules against torch's own operator samples: ``python -m tests.fake.sweep``.

Every operator of ``op_db`` runs on its sample inputs with autograd keys excluded, as in a capture.
A dispatch mode sees the overloads that arrive; each call for which there is a rule is compared with
the real kernel, with static and with symbolic sizes.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from tests.fake.checking import _show, compare
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from stillframe.fake.registry import RULES


class Comparing(TorchDispatchMode):
    """Compares each operator call for which there is a rule with the rule."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: collections.Counter[str] = collections.Counter()
        self.missing: collections.Counter[str] = collections.Counter()
        self.failures: dict[str, list[str]] = collections.defaultdict(list)
        self.guards: dict[str, str] = {}
        self.refused: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        leaves = pytree.tree_leaves((args, kwargs))
        if not all(is_plain(t) for t in leaves if isinstance(t, torch.Tensor)):
            return func(*args, **kwargs)
        if func not in RULES:
            self.missing[str(func)] += 1
            return func(*args, **kwargs)
        self.calls[str(func)] += 1
        shown = f"{_show(args)} {kwargs or ''}"
        outcome = compare(func, args, kwargs)
        if outcome.refused:
            self.refused[str(func)] += 1
        if outcome.mismatches:
            self.failures[str(func)].append(f"{shown}: {'; '.join(outcome.mismatches)}")
        if outcome.guards:
            self.guards[str(func)] = f"{shown}: {[str(g) for g in outcome.guards]}"
        return outcome.result


def is_plain(t: torch.Tensor) -> bool:
    """Whether ``t`` is of a kind that fakes stand for."""
    return t.layout is torch.strided and not t.is_quantized and not t.is_nested


def reversed_memory(t: torch.Tensor) -> torch.Tensor:
    """The same values with the dims in the opposite order in memory."""
    order = range(t.dim() - 1, -1, -1)
    return t.permute(*order).contiguous().permute(*order) if t.dim() > 1 else t


def sliced(t: torch.Tensor) -> torch.Tensor:
    """The same values with gaps between the elements of the last dim."""
    if t.dim() == 0:
        return t
    return torch.stack((t, t), -1).flatten(-2)[..., ::2]


def channels_last(t: torch.Tensor) -> torch.Tensor:
    """NHWC where the rank is 4, NDHWC where it is 5."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return t.contiguous(memory_format=formats[t.dim()]) if t.dim() in formats else t


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "given": lambda t: t,
    "reversed": reversed_memory,
    "sliced": sliced,
    "channels_last": channels_last,
}


def run(
    dtypes: tuple[torch.dtype, ...],
    samples: int,
    pattern: str = "",
    part: tuple[int, int] = (0, 1),
    layout: str = "given",
) -> Comparing:
    """Up to ``samples`` samples of each operator whose name contains ``pattern``.

    Args:
        part: ``(i, n)``: only every n-th operator, starting at the i-th.
        layout: a key of ``LAYOUTS``: how the samples' tensors lie in memory.
    """
    lay = LAYOUTS[layout]

    def convert(value: Any) -> Any:
        return pytree.tree_map_only(torch.Tensor, lambda t: lay(t) if is_plain(t) else t, value)

    comparing = Comparing()
    for info in op_db[part[0] :: part[1]]:
        if pattern not in info.name:
            continue
        for dtype in dtypes:
            if dtype not in info.dtypes:
                continue
            torch.manual_seed(0)
            try:
                made = list(itertools.islice(info.sample_inputs("cpu", dtype), samples))
            except Exception:
                continue
            for variant in (info.op, info.inplace_variant):
                for sample in made if variant is not None else ():
                    args, kwargs = convert((sample.input, *sample.args)), convert(sample.kwargs)
                    with torch.no_grad(), torch._C._AutoDispatchBelowAutograd(), comparing:
                        try:
                            variant(*args, **kwargs)
                        except Exception:  # samples that the real operator refuses
                            pass
    return comparing


def main() -> int:
    """Print mismatches by operator; the exit code tells whether there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern", nargs="?", default="")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--dtypes", default="float32,int64,bool,complex64,bfloat16")
    parser.add_argument("--layout", default="given", choices=list(LAYOUTS))
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--show", type=int, default=2)
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--guards", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    dtypes = tuple(getattr(torch, d) for d in options.dtypes.split(","))
    first, _, step = options.part.partition("/")
    found = run(dtypes, options.samples, options.pattern, (int(first), int(step)), options.layout)
    for name, texts in sorted(found.failures.items()):
        print(f"{name}: {len(texts)} of {found.calls[name]} calls")
        for text in texts[: options.show]:
            print(f"    {text}")
    if found.refused:
        print("refused with a typed error:", dict(found.refused.most_common()))
    if options.missing:
        print("without a rule:", dict(found.missing.most_common()))
    if options.guards:
        for name, text in sorted(found.guards.items()):
            print(f"guard in {name}: {text}")
    print(
        f"{sum(found.calls.values())} calls of {len(found.calls)} overloads, "
        f"{len(found.failures)} with mismatches, {len(found.missing)} overloads without a rule, "
        f"{time.perf_counter() - start:.0f} s"
    )
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(main())
