"""Compare the fake execution of an operator with its real CPU kernel.

The real operator runs as it does during a capture (autograd keys excluded, so composite operators
arrive whole). The fake mode runs it on fakes with static sizes, and again on fakes whose sizes are
symbols with the real sizes as hints. Compared are dtype, device, sizes, strides (of dims of more
than one element), offset, which input's memory the output shares, identity with an input, what an
in-place operator did to the sizes of its arguments, and whether the call is legal at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe.errors import DataDependentError, NotSupported
from stillframe.fake.context import RuleContext
from stillframe.fake.mode import FakeMode
from stillframe.fake.registry import RULES, load_rules
from stillframe.fake.tensor import FakeStorage, FakeTensor
from stillframe.shapes.env import Guard, ShapeEnv, Size, to_size
from stillframe.symbolic import Expr, Range, evaluate, unwrap

load_rules()


@dataclass(frozen=True)
class Difference:
    """One way in which fake and real execution differ.

    ``kind`` is what expectation files name: ``dtype``, ``device``, ``sizes``, ``strides``,
    ``offset``, ``alias``, ``value``, ``outputs``, ``raises`` (only the fake execution does) or
    ``accepts`` (only the kernel raises).
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass
class Outcome:
    """What a comparison found.

    ``symbolic`` says whether sizes were symbols in the second run; ``refused`` is the text of a
    typed error (not supported, depends on data) with which fake execution declined to answer;
    ``fallbacks`` holds the operators that were answered without a rule, by kind of run.
    """

    mismatches: list[Difference] = field(default_factory=list)
    guards: list[Guard] = field(default_factory=list)
    symbolic: bool = False
    refused: str = ""
    fallbacks: dict[str, list[str]] = field(default_factory=dict)
    result: Any = None
    error: Exception | None = None


def check(op: Any, *args: Any, symbolic_ints: bool = False, **kwargs: Any) -> Outcome:
    """Run ``op`` for real and by its rule; raise AssertionError where they differ.

    Args:
        symbolic_ints: also replace int arguments that equal a size of a tensor by its symbol.
    """
    with torch._C._AutoDispatchBelowAutograd(), torch.no_grad():
        outcome = compare(op, args, kwargs, symbolic_ints=symbolic_ints)
    if outcome.error is not None:
        raise outcome.error
    if outcome.refused:
        raise AssertionError(f"{op}: {outcome.refused}")
    if str(op) in outcome.fallbacks.get("static", ()):
        raise AssertionError(f"{op}{show(args)}{kwargs or ''}: its rule does not cover the call")
    if outcome.mismatches:
        raise AssertionError(
            f"{op}{show(args)}{kwargs or ''}:\n  " + "\n  ".join(map(str, outcome.mismatches))
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
        assert real_error is not None, f"{op} accepts {show(args)}"
        try:
            RULES[op](RuleContext(env), *fake_args, **fake_kwargs)
        except (RuntimeError, IndexError, TypeError, ValueError) as e:
            return e
    raise AssertionError(f"the rule of {op} accepts {show(args)}; eager: {real_error}")


def compare(
    op: Any, args: Sequence[Any], kwargs: dict[str, Any], *, symbolic_ints: bool = False
) -> Outcome:
    """Run ``op`` for real (in-place operators change the arguments) and on fakes, twice.

    An exception of the real operator is kept in the outcome.
    """
    outcome = Outcome()
    plans: list[tuple[str, Fakes, list[Any], dict[str, Any]]] = []
    for label in ("static", "symbolic"):
        fakes = Fakes(ShapeEnv(), symbols=label == "symbolic", ints=symbolic_ints)
        converted = fakes.convert(args), fakes.convert(kwargs)
        if label == "symbolic" and not fakes.env.symbols:
            continue
        plans.append((label, fakes, *converted))
    try:
        outcome.result = op(*args, **kwargs)
    except Exception as e:
        outcome.error = e
    reals = [a for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
    for label, fakes, fake_args, fake_kwargs in plans:
        mode = FakeMode(fakes.env)
        found: list[Difference] = []
        try:
            answer = mode.run(op, tuple(fake_args), fake_kwargs)
        except (NotSupported, DataDependentError) as e:
            if outcome.error is None:
                outcome.refused = e.what
            continue
        except Exception as e:
            if outcome.error is None:
                found = [Difference("raises", f"{type(e).__name__}: {e}")]
        else:
            if outcome.error is not None:
                found = [Difference("accepts", f"eager: {str(outcome.error).splitlines()[:1]}")]
            else:
                found = differences(fakes, reals, outcome.result, answer)
        outcome.fallbacks[label] = list(mode.fallbacks)
        if label == "symbolic" or any(t.numel() == 0 and not _row_major(t) for t in reals):
            # strides of nothing: an expression cannot count a size of 0 as 1, and kernels differ in
            # what they keep of strides that an input of no elements was given
            found = [d for d in found if d.kind != "empty strides"]
        if fakes.env.guards:
            # the call only fits special sizes; whether memory is shared may stay open then, since
            # the operator itself stays in the graph and decides at run time
            found = [d for d in found if d.kind != "strides" and d.text != _NOT_SHARED]
        outcome.mismatches += [Difference(d.kind, f"{d.text} ({label})") for d in found]
        if label == "symbolic":
            outcome.symbolic = True
            outcome.guards = fakes.env.guards
    return outcome


def _row_major(t: torch.Tensor) -> bool:
    """Whether the strides are those of a new tensor, to the letter."""
    return t.stride() == torch.empty(t.shape, device="meta").stride()


_NOT_SHARED = "does not share memory with the input that it should"


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


def differences(
    fakes: Fakes, reals: Iterable[torch.Tensor], real: Any, answer: Any
) -> list[Difference]:
    """How the fake answer, and the fake arguments after the call, differ from the real ones."""
    want, have = pytree.tree_leaves(real), pytree.tree_leaves(answer)
    if len(want) != len(have):
        return [Difference("outputs", f"{len(have)} of them, should be {len(want)}")]
    found: list[Difference] = []
    reals = list(reals)
    values = dict(fakes.env.hints)  # and of unbacked sizes, from the first output that has them
    for i, (r, f) in enumerate(zip(want, have, strict=True)):
        prefix = f"output {i}: " if len(want) > 1 else ""
        if not isinstance(r, torch.Tensor):
            f = to_size(f)
            if not isinstance(f, Expr) and f != r:
                found.append(Difference("value", f"{prefix}{f!r}, should be {r!r}"))
        elif not isinstance(f, FakeTensor):
            found.append(Difference("value", f"{prefix}{f!r}, should be a tensor"))
        else:
            texts = [*_metadata_differences(r, f, values), *_alias_differences(fakes, reals, r, f)]
            found += [Difference(d.kind, prefix + d.text) for d in texts]
    for r in reals:
        for d in _metadata_differences(r, fakes.by_id[id(r)], values):
            found.append(Difference(d.kind, f"argument after the call: {d.text}"))
    return found


def _metadata_differences(
    r: torch.Tensor, f: FakeTensor, values: dict[Expr, int]
) -> list[Difference]:
    found: list[Difference] = []

    def number(size: Size) -> int | None:
        """None where only the data tells."""
        if not isinstance(size, Expr):
            return size
        if any(s not in values for s in size.free_symbols):
            return None
        return int(evaluate(size, values))

    if f.dtype is not r.dtype:
        found.append(Difference("dtype", f"{f.dtype}, should be {r.dtype}"))
    if f.device != r.device:
        found.append(Difference("device", f"{f.device}, should be {r.device}"))
    for have, size in zip(f.sizes, r.shape, strict=False):
        if isinstance(have, Expr) and have.op == "symbol" and have not in values:
            values[have] = size
    sizes = tuple(number(s) for s in f.sizes)
    if len(sizes) != r.dim() or any(
        a not in (None, b) for a, b in zip(sizes, r.shape, strict=True)
    ):
        return [*found, Difference("sizes", f"{sizes}, should be {tuple(r.shape)}")]
    if any(type(s) is bool for s in (*f.sizes, *f.strides)) or any(
        isinstance(s, Expr) and s.is_constant for s in (*f.sizes, *f.strides, f.offset)
    ):
        constants = f"constants that were not unwrapped: {f.sizes} {f.strides} {f.offset}"
        found.append(Difference("sizes", constants))
    strides = tuple(number(s) for s in f.strides)
    if any(
        a not in (None, b) and n != 1 for a, b, n in zip(strides, r.stride(), r.shape, strict=True)
    ):
        text = f"{strides}, should be {r.stride()} for sizes {tuple(r.shape)}"
        found.append(Difference("strides" if r.numel() else "empty strides", text))
    if number(f.offset) not in (None, r.storage_offset()):
        found.append(Difference("offset", f"{number(f.offset)}, should be {r.storage_offset()}"))
    return found


def _alias_differences(
    fakes: Fakes, reals: list[torch.Tensor], r: torch.Tensor, f: FakeTensor
) -> list[Difference]:
    """Is the output an input, or over the memory of one, exactly where the real one is?"""
    same = next((t for t in reals if t is r), None)
    is_same = next((t for t in reals if fakes.by_id[id(t)] is f), None)
    if same is not is_same:
        have = "is" if is_same is not None else "is not"
        want = "one" if same is not None else "a new tensor"
        return [Difference("alias", f"{have} an input, eager returns {want}")]
    if same is not None:
        return []
    mine = fakes.storages.get(r.untyped_storage()._cdata) if r.numel() else f.storage_
    if mine is f.storage_:
        return []
    if mine is not None:
        return [Difference("alias", _NOT_SHARED)]
    if any(f.storage_ is s for s in fakes.storages.values()):
        return [Difference("alias", "shares memory with an input, should not")]
    return []


def show(args: Any) -> str:
    """Arguments as text, tensors by their metadata."""

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
