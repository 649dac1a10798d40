"""Check fake execution against torch's own operator samples: ``python -m tests.fake.sweep``.

Every operator of ``op_db`` runs on its sample inputs and error inputs with autograd keys excluded,
as in a capture. A dispatch mode sees the overloads that arrive and compares each call with the fake
execution, with static sizes and with a symbol for every size. Then the whole call runs once more
with and without fakes to compare ``requires_grad``.

``expected.toml`` lists the known differences with reasons. A difference that is not listed, or a
listed one that does not show up any more although all its samples ran, makes the run fail. With
``--backward`` the samples run under autograd instead; what only that shows is marked in the list.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import multiprocessing
import pathlib
import sys
import time
import tomllib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from tests.fake.checking import Difference, Fakes, compare, show
from tests.fake.samples import (
    DTYPES,
    LAYOUTS,
    OPERATORS,
    Call,
    error_samples_of,
    is_plain,
    samples_of,
)
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from stillframe import torch_private
from stillframe.errors import DataDependentError, NotSupported
from stillframe.fake.mode import FakeMode
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv

EXPECTED = pathlib.Path(__file__).with_name("expected.toml")
ALL = 1_000_000  # more samples than any operator has


@dataclass(frozen=True)
class Found:
    """A difference and the call that shows it."""

    operator: str
    dtype: str
    overload: str
    difference: Difference
    call: str
    run: str = "forward"

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.operator, self.overload, self.difference.kind)

    def __str__(self) -> str:
        where = f"{self.operator} [{self.dtype}] {self.overload}"
        return f"{where}\n    {self.difference}\n    {self.call[:400]}"


@dataclass
class Report:
    """What the samples of some operators showed.

    ``table`` counts calls by (operator, dtype) and outcome: ``pass``, ``differ``, ``refuse``,
    ``fallback`` (a static call without a rule, whatever its outcome).
    """

    table: dict[tuple[str, str], collections.Counter[str]] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)
    refused: collections.Counter[str] = field(default_factory=collections.Counter)
    fallbacks: dict[str, collections.Counter[str]] = field(
        default_factory=lambda: {
            "static": collections.Counter(),
            "symbolic": collections.Counter(),
        }
    )
    guards: dict[str, list[str]] = field(default_factory=dict)
    calls: collections.Counter[str] = field(default_factory=collections.Counter)

    def row(self, operator: str, dtype: str) -> collections.Counter[str]:
        return self.table.setdefault((operator, dtype), collections.Counter())

    def add(self, other: Report) -> None:
        """Take in what another process found."""
        for key, counts in other.table.items():
            self.row(*key).update(counts)
        self.found += other.found
        self.refused.update(other.refused)
        self.calls.update(other.calls)
        for label, counts in other.fallbacks.items():
            self.fallbacks[label].update(counts)
        for overload, texts in other.guards.items():
            self.guards.setdefault(overload, []).extend(texts)


class Comparing(TorchDispatchMode):
    """Compares each operator call that arrives with its fake execution."""

    def __init__(self, report: Report, operator: str, dtype: str, run: str) -> None:
        super().__init__()
        self.report, self.operator, self.dtype, self.run = report, operator, dtype, run

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
        report, row, name = self.report, self.report.row(self.operator, self.dtype), str(func)
        report.calls[name] += 1
        call = f"{show(args)} {kwargs or ''}"
        outcome = compare(func, args, kwargs)
        for label, fallbacks in outcome.fallbacks.items():
            report.fallbacks[label].update(fallbacks)
        row["fallback"] += bool(outcome.fallbacks.get("static"))
        if outcome.refused:
            report.refused[name] += 1
        kind = "refuse" if outcome.refused else "pass"
        row["differ" if outcome.mismatches else kind] += 1
        if outcome.refused:
            outcome.mismatches.append(Difference("refuses", outcome.refused))
        for difference in outcome.mismatches:
            found = Found(self.operator, self.dtype, name, difference, call, self.run)
            report.found.append(found)
        if outcome.guards:
            guards = [str(g).partition("#")[0].strip() for g in outcome.guards]
            report.guards.setdefault(name, []).append(f"{call}: {guards}")
        if outcome.error is not None:
            raise outcome.error
        return outcome.result


# -- requires_grad ---------------------------------------------------------------------------------


def grad_flags(result: Any, call: Call) -> list[bool]:
    """``requires_grad`` of each tensor in the result and in the arguments."""
    leaves = pytree.tree_leaves((result, call.args, call.kwargs))
    return [t.requires_grad for t in leaves if isinstance(t, torch.Tensor)]


def differentiable(t: torch.Tensor) -> bool:
    return t.is_floating_point() or t.is_complex()


#: Which tensors require grad, by their position in the call.
GRAD_PATTERNS: tuple[Callable[[int], bool], ...] = (
    lambda position: True,
    lambda position: position == 0,
    lambda position: position > 0,
)


def grad_difference(
    variant: Any, call: Call, requires_grad: Callable[[int], bool]
) -> Difference | None:
    """Run the call with inputs of which some require grad, for real and on fakes."""

    def prepared(position: int, t: torch.Tensor) -> torch.Tensor:
        t = t.detach()
        if differentiable(t) and requires_grad(position):
            t.requires_grad_()
        return t

    with torch.enable_grad():
        leaves = call.copied(prepared)
        real = leaves.copied(lambda _, t: t.clone())  # not leaves, so that they may be written
        fakes = Fakes(ShapeEnv(), symbols=False)
        fake = real.copied(lambda _, t: fakes.convert(t))
        for r, f in zip(grad_tensors(real), grad_tensors(fake), strict=True):
            f.requires_grad = r.requires_grad
        try:
            want = grad_flags(variant(*real.args, **real.kwargs), real)
        except Exception:  # what calls are legal is compared without autograd
            return None
        try:
            with torch_private.below_autograd(), FakeMode(fakes.env).computing():
                have = grad_flags(variant(*fake.args, **fake.kwargs), fake)
        except (NotSupported, DataDependentError):
            return None
        except Exception as e:
            return Difference("requires_grad", f"{type(e).__name__}: {e}")
    if want != have:
        return Difference("requires_grad", f"{have}, should be {want}")
    return None


def grad_matters(call: Call) -> bool:
    """Whether all tensors can be faked and one of them can require grad."""
    tensors = grad_tensors(call)
    return all(map(is_plain, tensors)) and any(map(differentiable, tensors))


def grad_tensors(call: Call) -> list[Any]:
    """The tensor arguments."""
    leaves = pytree.tree_leaves((call.args, call.kwargs))
    return [t for t in leaves if isinstance(t, (torch.Tensor, FakeTensor))]


# -- backward --------------------------------------------------------------------------------------


def try_backward(report: Report, name: str, dtype: str, call: Call) -> None:
    """Compare what autograd calls for one sample, forward and backward."""
    info = OPERATORS[name]
    leaves = call.copied(lambda _, t: t.detach().requires_grad_(differentiable(t)))
    with torch.enable_grad(), Comparing(report, name, dtype, "backward"):
        try:
            results = pytree.tree_leaves(info.op(*leaves.args, **leaves.kwargs))
            outputs = [t for t in results if isinstance(t, torch.Tensor) and t.requires_grad]
            inputs = [t for t in grad_tensors(leaves) if t.requires_grad]
            dense = [torch.ones_like(t) for t in outputs]
            expanded = [torch.ones((), dtype=t.dtype).expand(t.shape) for t in outputs]  # of a sum
            for seeds in (dense, expanded):
                torch.autograd.grad(outputs, inputs, seeds, retain_graph=True, allow_unused=True)
        except Exception:  # not differentiable, or compared in the mode
            pass


# -- running ---------------------------------------------------------------------------------------


def sweep_operator(
    name: str,
    dtypes: Iterable[str],
    layouts: Iterable[str],
    limit: int,
    backward: bool = False,
) -> Report:
    """Up to ``limit`` samples of one operator for each dtype and layout, and its error inputs.

    Args:
        backward: run the samples under autograd instead, and their backward pass.
    """
    report, info = Report(), OPERATORS[name]
    for dtype in dtypes:
        if getattr(torch, dtype) in info.dtypes:
            for layout in layouts:
                for call in samples_of(info, getattr(torch, dtype), layout, limit):
                    if backward:
                        if info.supports_autograd and grad_matters(call):
                            try_backward(report, name, dtype, call)
                        continue
                    try_call(report, name, dtype, call, with_grad=layout == "given")
    for call in () if backward else error_samples_of(info):
        try_call(report, name, "errors", call, with_grad=False)
    return report


def try_call(report: Report, name: str, dtype: str, call: Call, *, with_grad: bool) -> None:
    """Compare the operator and its in-place form on one sample."""
    info = OPERATORS[name]
    for variant in filter(None, (info.op, info.inplace_variant)):
        if with_grad and grad_matters(call):
            for pattern in GRAD_PATTERNS:
                difference = grad_difference(variant, call, pattern)
                if difference is not None:
                    shown = f"{show(call.args)} {call.kwargs or ''}"
                    overload = getattr(variant, "__name__", str(variant))
                    report.found.append(Found(name, dtype, overload, difference, shown))
                    report.row(name, dtype)["differ"] += 1
        comparing = Comparing(report, name, dtype, "forward")
        with torch.no_grad(), torch_private.below_autograd(), comparing:
            try:
                variant(*call.args, **call.kwargs)
            except Exception:  # compared in the mode, if it came from an operator
                pass


def run(
    names: Iterable[str],
    dtypes: tuple[str, ...] = DTYPES,
    layouts: tuple[str, ...] = ("given",),
    limit: int = ALL,
    jobs: int = 1,
    *,
    backward: bool = False,
    progress: bool = False,
) -> Report:
    """Sweep over the named operators, in ``jobs`` processes."""
    names, report = list(names), Report()
    options = (dtypes, layouts, limit, backward)
    start = time.perf_counter()

    def take(done: int, part: Report) -> None:
        report.add(part)
        if progress:
            seconds = time.perf_counter() - start
            line = f"{done}/{len(names)} operators, {len(report.found)} differences"
            print(f"\r{line}, {seconds:.0f} s", end="", file=sys.stderr, flush=True)

    if jobs == 1:
        quiet()
        for i, name in enumerate(names):
            take(i + 1, sweep_operator(name, *options))
    else:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(jobs, context, quiet) as pool:
            parts = [pool.submit(sweep_operator, n, *options) for n in names]
            for i, part in enumerate(concurrent.futures.as_completed(parts)):
                take(i + 1, part.result())
    if progress:
        print(file=sys.stderr)
    return report


def quiet() -> None:
    """One thread, no warnings: samples warn a lot and are small."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


# -- expectations ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expectation:
    """A known difference of some operators, and why it is one.

    ``operators`` may be ``("*",)``: all that call the overload. ``text`` is a part of the
    difference's text. ``run`` is ``forward`` or ``backward``, the run that must show it; a backward
    run, which calls the forward pass too, may show either.
    """

    operators: tuple[str, ...]
    overload: str
    kind: str
    reason: str
    text: str = ""
    run: str = "forward"

    def covers(self, found: Found) -> bool:
        return (
            (found.operator in self.operators or self.operators == ("*",))
            and found.overload == self.overload
            and found.difference.kind == self.kind
            and self.text in found.difference.text
            and self.run in ("forward", found.run)
        )


def expectations() -> list[Expectation]:
    """The entries of ``expected.toml``; each must give a reason."""
    entries = tomllib.loads(EXPECTED.read_text())["difference"]
    made = [Expectation(tuple(e.pop("operators")), **e) for e in entries]
    unknown = {name for entry in made for name in entry.operators} - OPERATORS.keys() - {"*"}
    unknown |= {entry.run for entry in made} - {"forward", "backward"}
    if unknown or not all(entry.reason for entry in made):
        raise ValueError(f"{EXPECTED.name}: unknown names {unknown}, or a reason is missing")
    return made


def surprises(report: Report, expected: list[Expectation]) -> list[Found]:
    """Differences that no entry covers."""
    return [f for f in report.found if not any(entry.covers(f) for entry in expected)]


def outdated(
    report: Report, expected: list[Expectation], run: str = "forward"
) -> list[tuple[str, Expectation]]:
    """Operators of entries of a run that ran and did not differ in the way that the entry says."""
    ran = {operator for operator, _ in report.table}
    everything = ran >= OPERATORS.keys()
    return [
        (operator, entry)
        for entry in expected
        for operator in entry.operators
        if entry.run == run
        and (everything if operator == "*" else operator in ran)
        and not any(operator in ("*", f.operator) and entry.covers(f) for f in report.found)
    ]


def is_complete(run: str, dtypes: Iterable[str], layouts: Iterable[str]) -> bool:
    """Whether every entry of the list that is of this run must show up."""
    if run == "backward":
        return set(dtypes) >= {"float32", "complex64"}
    return set(dtypes) >= set(DTYPES) and set(layouts) == set(LAYOUTS)


# -- the command -----------------------------------------------------------------------------------


def print_table(report: Report, every: bool) -> None:
    """One line per operator and dtype (only those that are not all passes), then the totals."""
    columns = ("pass", "differ", "refuse", "fallback")
    totals: dict[str, collections.Counter[str]] = {}
    for (operator, dtype), counts in sorted(report.table.items()):
        totals.setdefault(dtype, collections.Counter()).update(counts)
        if every or counts["differ"] or counts["refuse"] or counts["fallback"]:
            print(f"{operator:48} {dtype:10}", *(f"{counts[c]:6} {c}" for c in columns))
    for dtype, counts in totals.items():
        print(f"{'all':48} {dtype:10}", *(f"{counts[c]:6} {c}" for c in columns))


def print_counts(title: str, counts: collections.Counter[str]) -> None:
    """Most frequent first."""
    print(f"{title}: {sum(counts.values())}")
    for name, count in counts.most_common():
        print(f"    {count:6} {name}")


def print_found(found: list[Found], examples: int) -> None:
    """Differences grouped by overload and kind, the most frequent first."""
    groups: dict[tuple[str, str], list[Found]] = collections.defaultdict(list)
    for f in found:
        groups[f.overload, f.difference.kind].append(f)
    for (overload, kind), members in sorted(groups.items(), key=lambda g: -len(g[1])):
        operators = sorted({f"{f.operator}[{f.dtype}]" for f in members})
        print(f"{len(members)} x {overload} {kind}, in {' '.join(operators)}")
        for f in members[:examples]:
            print(f"    {f.difference}\n        {f.call[:300]}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ops", default="", help="names or parts of names, with commas")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--layouts", default="given", help=f"of {', '.join(LAYOUTS)}; or all")
    parser.add_argument("--samples", type=int, default=ALL, help="per operator, dtype and layout")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--backward", action="store_true", help="autograd's operators instead")
    parser.add_argument("--examples", type=int, default=2, help="calls to show per difference")
    parser.add_argument("--table", action="store_true", help="operators without a finding too")
    parser.add_argument("--guards", action="store_true", help="calls that recorded a guard")
    return parser.parse_args()


def main() -> int:
    """Print what was found; the exit code tells whether it is what is expected."""
    options = parse_options()
    parts = options.ops.split(",")
    names = [n for n in OPERATORS if n in parts or any(p in n for p in parts)]
    layouts = tuple(LAYOUTS) if options.layouts == "all" else tuple(options.layouts.split(","))
    dtypes = tuple(options.dtypes.split(","))
    report = run(
        names,
        dtypes,
        layouts,
        options.samples,
        options.jobs,
        backward=options.backward,
        progress=True,
    )
    expected = expectations()
    print_table(report, options.table)
    print_counts("refused with a typed error", report.refused)
    without_rule = {
        operator for (operator, _), counts in report.table.items() if counts["fallback"]
    }
    print(f"{len(without_rule)} of {len(names)} operators meet one without a rule")
    for label, counts in report.fallbacks.items():
        print_counts(f"answered without a rule, {label} sizes", counts)
    print_counts("guards", collections.Counter({k: len(v) for k, v in report.guards.items()}))
    if options.guards:
        for overload, texts in sorted(report.guards.items()):
            print(f"guard in {overload}:", *texts[:3], sep="\n    ")
    unexpected = surprises(report, expected)
    print_found(unexpected, options.examples)
    kind = "backward" if options.backward else "forward"
    complete = options.samples >= ALL and is_complete(kind, dtypes, layouts)
    old = outdated(report, expected, kind) if complete else []
    for operator, entry in old:
        print(f"expected and gone: {operator} {entry.overload} {entry.kind}; remove the entry")
    print(
        f"{sum(report.calls.values())} calls of {len(report.calls)} overloads, "
        f"{len(report.found)} differences, {len(unexpected)} not expected"
    )
    return 1 if unexpected or old else 0


if __name__ == "__main__":
    sys.exit(main())
