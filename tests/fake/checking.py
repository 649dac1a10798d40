"""Compare a shape rule with the operator's real CPU kernel.

The real operator runs as it does during a capture (autograd keys excluded, so composite operators
arrive whole). The rule runs on fakes with static sizes, and again on fakes whose sizes are symbols
with the real sizes as hints. Compared are dtype, device, sizes, strides (of dims of more than one
element), offset, which input's memory the output shares, and identity with an input.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe.errors import DataDependentError, NotSupported
from stillframe.fake.context import RuleContext
from stillframe.fake.registry import RULES, load_rules
from stillframe.fake.tensor import FakeStorage, FakeTensor
from stillframe.shapes.env import Guard, ShapeEnv, Size
from stillframe.symbolic import Expr, Range, evaluate, unwrap

load_rules()


@dataclass
class Outcome:
    """What a comparison found.

    ``symbolic`` says whether sizes were symbols in the second run; ``refused`` is the text of a
    typed error (not supported, depends on data) with which the rule declined to answer.
    """

    mismatches: list[str] = field(default_factory=list)
    guards: list[Guard] = field(default_factory=list)
    symbolic: bool = False
    refused: str = ""
    result: Any = None


def check(op: Any, *args: Any, symbolic_ints: bool = False, **kwargs: Any) -> Outcome:
    """Run ``op`` for real and by its rule; raise AssertionError where they differ.

    Args:
        symbolic_ints: also replace int arguments that equal a size of a tensor by its symbol.
    """
    with torch._C._AutoDispatchBelowAutograd(), torch.no_grad():
        outcome = compare(op, args, kwargs, symbolic_ints=symbolic_ints)
    if outcome.refused:
        raise AssertionError(f"{op}: {outcome.refused}")
    if outcome.mismatches:
        raise AssertionError(
            f"{op}{_show(args)}{kwargs or ''}:\n  " + "\n  ".join(outcome.mismatches)
        )
    return outcome


def check_error(op: Any, *args: Any, **kwargs: Any) -> Exception:
    """Both the real operator and the rule must refuse; returns the rule's exception."""
    env = ShapeEnv()
    fakes = Fakes(env, symbols=False)
    with torch._C._AutoDispatchBelowAutograd(), torch.no_grad():
        fake_args, fake_kwargs = fakes.convert(args), fakes.convert(kwargs)
        real_error: Exception | None = None
        try:
            op(*args, **kwargs)
        except (RuntimeError, IndexError, TypeError, ValueError) as e:
            real_error = e
        assert real_error is not None, f"{op} accepts {_show(args)}"
        try:
            RULES[op](RuleContext(env), *fake_args, **fake_kwargs)
        except (RuntimeError, IndexError, TypeError, ValueError) as e:
            return e
    raise AssertionError(f"the rule of {op} accepts {_show(args)}; eager: {real_error}")


def compare(
    op: Any, args: Sequence[Any], kwargs: dict[str, Any], *, symbolic_ints: bool = False
) -> Outcome:
    """Run ``op`` for real (in-place operators change the arguments) and by its rule, twice."""
    outcome = Outcome()
    plans: list[tuple[str, Fakes, list[Any], dict[str, Any]]] = []
    for label in ("static", "symbolic"):
        fakes = Fakes(ShapeEnv(), symbols=label == "symbolic", ints=symbolic_ints)
        converted = fakes.convert(args), fakes.convert(kwargs)
        if label == "symbolic" and not fakes.env.symbols:
            continue
        plans.append((label, fakes, *converted))
    outcome.result = op(*args, **kwargs)
    reals = [a for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
    for label, fakes, fake_args, fake_kwargs in plans:
        try:
            answer = RULES[op](RuleContext(fakes.env), *fake_args, **fake_kwargs)
        except (NotSupported, DataDependentError) as e:
            outcome.refused = e.what
            continue
        except Exception as e:
            outcome.mismatches.append(f"{label}: the rule raised {type(e).__name__}: {e}")
            continue
        found = differences(fakes, reals, outcome.result, answer)
        if fakes.env.guards:
            # the call only fits special sizes; whether memory is shared may stay open then, since
            # the operator itself stays in the graph and decides at run time
            found = [text for text in found if not text.startswith(("strides", "does not share"))]
        outcome.mismatches += [f"{label}: {text}" for text in found]
        if label == "symbolic":
            outcome.symbolic = True
            outcome.guards = fakes.env.guards
    return outcome


class Fakes:
    """Converts real arguments to fakes of one environment, one fake per tensor object."""

    def __init__(self, env: ShapeEnv, *, symbols: bool, ints: bool = False) -> None:
        self.env = env
        self.symbols = symbols
        self.ints = ints
        self.by_size: dict[int, Expr] = {}
        self.by_id: dict[int, FakeTensor] = {}
        self.storages: dict[int, FakeStorage] = {}
        self.alive: list[torch.Tensor] = []

    def convert(self, value: Any) -> Any:
        """Lists, tuples and dicts of tensors and plain values."""
        if isinstance(value, torch.Tensor):
            fake = self.by_id.get(id(value))
            if fake is None:
                self.alive.append(value)  # so that ids stay unique
                fake = self.by_id[id(value)] = self._fake(value)
            return fake
        if isinstance(value, dict):
            return {k: self.convert(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.convert(v) for v in value]
        if self.ints and type(value) is int:
            return self.by_size.get(value, value)
        return value

    def _fake(self, real: torch.Tensor) -> FakeTensor:
        sizes: tuple[Size, ...] = tuple(real.shape)
        strides: tuple[Size, ...] = real.stride()
        if self.symbols:
            symbolic = tuple(self._symbol(s) if s >= 2 else s for s in real.shape)
            dense = symbolic_strides(real, symbolic)
            if dense is not None:
                sizes, strides = symbolic, dense
        key = real.untyped_storage()._cdata
        storage = self.storages.setdefault(key, FakeStorage())
        return FakeTensor.make(
            self.env,
            sizes,
            strides,
            real.storage_offset(),
            real.dtype,
            real.device,
            storage=storage,
        )

    def _symbol(self, size: int) -> Expr:
        if size not in self.by_size:
            self.by_size[size] = self.env.new_symbol(f"d{size}", size, Range(2, float("inf")))
        return self.by_size[size]


def symbolic_strides(real: torch.Tensor, sizes: Sequence[Size]) -> tuple[Size, ...] | None:
    """Strides over symbolic sizes in the real order; None where the gaps are of no simple form.

    A gap becomes a constant factor (a step over the dim inside) or a constant number of additional
    rows (a slice of the dim inside).
    """
    strides: list[Any] = [0] * real.dim()
    moving = [d for d in range(real.dim()) if real.stride(d) != 0 and real.shape[d] != 1]
    expected, expression, step, step_expression = 1, unwrap(1), 1, unwrap(1)
    for d in sorted(moving, key=lambda d: (real.stride(d), -d)):
        stride = real.stride(d)
        if stride % expected == 0:
            expression = unwrap(expression * (stride // expected))
        elif stride > expected and (stride - expected) % step == 0:
            expression = unwrap(expression + step_expression * ((stride - expected) // step))
        else:
            return None
        strides[d], step, step_expression = expression, stride, expression
        expected, expression = stride * real.shape[d], unwrap(expression * sizes[d])
    for d in range(real.dim()):
        if real.shape[d] == 1:
            strides[d] = _one_stride(real, d, sizes, strides)
    return tuple(strides)


def _one_stride(real: torch.Tensor, d: int, sizes: Sequence[Size], strides: list[Any]) -> Size:
    """The stride of a dim of size 1: the expression that has its value elsewhere."""
    value = real.stride(d)
    for e in range(real.dim()):
        if real.shape[e] != 1 and real.stride(e) != 0:
            if real.stride(e) * real.shape[e] == value:
                return unwrap(strides[e] * sizes[e])
            if real.stride(e) == value:
                return strides[e]
    return value


def differences(fakes: Fakes, reals: Iterable[torch.Tensor], real: Any, answer: Any) -> list[str]:
    """How the rule's answer differs from the real result."""
    want, have = pytree.tree_leaves(real), pytree.tree_leaves(answer)
    if len(want) != len(have):
        return [f"{len(have)} outputs, should be {len(want)}"]
    found: list[str] = []
    reals = list(reals)
    values = dict(fakes.env.hints)  # and of unbacked sizes, from the first output that has them
    for i, (r, f) in enumerate(zip(want, have, strict=True)):
        prefix = f"output {i}: " if len(want) > 1 else ""
        if not isinstance(r, torch.Tensor):
            if not isinstance(f, Expr) and f != r:
                found.append(f"{prefix}{f!r}, should be {r!r}")
        elif not isinstance(f, FakeTensor):
            found.append(f"{prefix}{f!r}, should be a tensor")
        else:
            found += [prefix + text for text in _tensor_differences(fakes, reals, r, f, values)]
    return found


def _tensor_differences(
    fakes: Fakes,
    reals: list[torch.Tensor],
    r: torch.Tensor,
    f: FakeTensor,
    hints: dict[Expr, int],
) -> list[str]:
    found = []

    def number(size: Size) -> int | None:
        if not isinstance(size, Expr):
            return size
        if any(s not in hints for s in size.free_symbols):
            return None
        return int(evaluate(size, hints))

    if f.dtype is not r.dtype:
        found.append(f"dtype {f.dtype}, should be {r.dtype}")
    if f.device != r.device:
        found.append(f"device {f.device}, should be {r.device}")
    for have, size in zip(f.sizes, r.shape, strict=False):
        if isinstance(have, Expr) and have.op == "symbol" and have not in hints:
            hints[have] = size
    sizes = [number(s) for s in f.sizes]
    if tuple(sizes) != tuple(r.shape):
        return [*found, f"sizes {tuple(sizes)}, should be {tuple(r.shape)}"]
    if any(type(s) is bool for s in (*f.sizes, *f.strides)) or any(
        isinstance(s, Expr) and s.is_constant for s in (*f.sizes, *f.strides, f.offset)
    ):
        found.append(f"constants that were not unwrapped: {f.sizes} {f.strides} {f.offset}")
    if r.numel() > 0:
        strides = tuple(number(s) for s in f.strides)
        if any(
            a != b and size != 1 for a, b, size in zip(strides, r.stride(), r.shape, strict=True)
        ):
            found.append(f"strides {strides}, should be {r.stride()} for sizes {tuple(r.shape)}")
    if number(f.offset) != r.storage_offset():
        found.append(f"offset {number(f.offset)}, should be {r.storage_offset()}")
    same = next((t for t in reals if t is r), None)
    is_same = next((t for t in reals if fakes.by_id[id(t)] is f), None)
    if same is not is_same:
        found.append(
            f"{'is' if is_same is not None else 'is not'} an input, eager returns "
            f"{'one' if same is not None else 'a new tensor'}"
        )
    elif same is None:
        mine = fakes.storages.get(r.untyped_storage()._cdata) if r.numel() else f.storage_
        if mine is not f.storage_ and (
            mine is not None or any(f.storage_ is s for s in fakes.storages.values())
        ):
            found.append(
                "shares memory with an input, should not"
                if mine is None
                else "does not share memory with the input that it should"
            )
    return found


def _show(args: Any) -> str:
    def one(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"tensor(sizes={tuple(value.shape)}, strides={value.stride()}, {value.dtype})"
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(map(one, value)) + "]"
        return repr(value)

    return "(" + ", ".join(map(one, args)) + ")"


def layouts_of(sizes: Sequence[int], dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Tensors of the same sizes in every layout that kernels tell apart."""

    def fill(*shape: int) -> torch.Tensor:
        if dtype is torch.bool:
            return torch.rand(shape) > 0.5
        if dtype.is_floating_point or dtype.is_complex:
            return torch.randn(shape).to(dtype)
        return torch.randint(0, 5, tuple(shape)).to(dtype)

    rank = len(sizes)
    made = {"contiguous": fill(*sizes)}
    if rank >= 2:
        made["transposed"] = fill(*reversed(sizes)).permute(*range(rank - 1, -1, -1))
        made["expanded"] = fill(1, *sizes[1:]).expand(*sizes)
        made["expanded last"] = fill(*sizes[:-1], 1).expand(*sizes)
        made["sliced"] = fill(*sizes[:-1], sizes[-1] * 2)[..., ::2]
        made["offset"] = fill(sizes[0] + 1, *sizes[1:])[1:]
    if rank >= 3:
        made["swapped"] = fill(*sizes[:-2], sizes[-1], sizes[-2]).transpose(-1, -2)
        made["swapped slice"] = fill(sizes[1], sizes[0] + 1, *sizes[2:])[:, 1:].transpose(0, 1)
    if rank == 4:
        made["channels last"] = fill(*sizes).to(memory_format=torch.channels_last)
    return made
