"""Trace torch's own operator samples: ``python -m tests.trace.sweep_make_fx``.

Every operator of ``op_db`` is traced on its sample inputs, in each mode, and the graph is run
beside eager: on the inputs of the trace, and in symbolic mode on every other sample that the
graph's placeholders and guards admit. Random operators are compared by the metadata of their
results. With ``--torch`` torch's own ``make_fx`` runs on the same samples.

The outcome of an operator is the worst of its samples:

- ``ok``: all graphs agree with eager;
- ``data``: refused, because Python code asks for the data of an input: the right answer;
- ``refused``: any other typed error of stillframe;
- ``error``: any other exception: a defect;
- ``wrong``: a graph gave another result than eager: a defect.

``make_fx_expectations.txt`` beside this file lists what is not ``ok``, with reasons.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

import stillframe as sf
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr, evaluate

MODES = ("real", "fake", "symbolic")
SEVERITY = ("ok", "data", "refused", "error", "wrong")
#: op_db seeds its random operators with this number before each call.
SEED = 42
EXPECTATIONS = Path(__file__).with_name("make_fx_expectations.txt")

#: Their results are memory that nobody wrote, or random.
METADATA_ONLY = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided",
                 "empty_permuted", "resize_", "resize_as_")  # fmt: skip


@dataclass
class Outcome:
    """What the samples of one operator gave in one mode, by one library."""

    op: str
    mode: str
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    first: dict[str, str] = field(default_factory=dict)
    reruns: int = 0

    def add(self, kind: str, detail: str = "") -> None:
        self.counts[kind] += 1
        self.first.setdefault(kind, detail)

    @property
    def worst(self) -> str:
        return max(self.counts, key=SEVERITY.index, default="ok")


@dataclass(frozen=True)
class Sample:
    """A call of an operator with its tensors taken out: ``call(*tensors)``."""

    call: Callable[..., Any]
    tensors: list[torch.Tensor]
    key: Any

    @property
    def shown(self) -> str:
        """The sizes and the other arguments, for a message."""
        return ", ".join(f"{tuple(t.shape)}" for t in self.tensors) + f" {self.key[1]}"

    def copies(self) -> list[torch.Tensor]:
        """The tensors anew, so that in-place operators do no harm. Layouts are kept."""
        return [_copy(t) for t in self.tensors]


def _copy(t: torch.Tensor) -> torch.Tensor:
    if t.layout is not torch.strided or t.is_quantized or t.is_nested:
        return t.detach().clone()
    base = t.detach()
    if base.numel() == 0:
        return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype)
    extent = 1 + sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True))
    memory = base.as_strided((extent,), (1,)).clone()
    return memory.as_strided(t.shape, t.stride())


def samples_of(info: Any, dtype: torch.dtype, limit: int) -> Iterator[Sample]:
    """Up to ``limit`` samples of an operator."""
    for number, sample in enumerate(info.sample_inputs("cpu", dtype, requires_grad=False)):
        if number == limit:
            return
        leaves, spec = pytree.tree_flatten(((sample.input, *sample.args), sample.kwargs))
        at = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        rest = [None if i in at else leaf for i, leaf in enumerate(leaves)]

        def call(*tensors: Any, at: Any = at, rest: Any = rest, spec: Any = spec) -> Any:
            filled = list(rest)
            for i, tensor in zip(at, tensors, strict=True):
                filled[i] = tensor
            args, kwargs = pytree.tree_unflatten(filled, spec)
            return info.op(*args, **kwargs)

        key = (str(spec), repr(rest), at)
        yield Sample(call, [leaves[i] for i in at], key)


# -- one operator ---------------------------------------------------------------------------------


def check_operator(info: Any, mode: str, dtype: torch.dtype, limit: int, library: str) -> Outcome:
    """Trace the samples of one operator and compare the graphs with eager."""
    outcome = Outcome(name_of(info), mode)
    for sample, samples, expected in with_results(outcome, info, dtype, limit):
        check_sample(outcome, sample, samples, expected, mode, library)
    return outcome


def with_results(
    outcome: Outcome, info: Any, dtype: torch.dtype, limit: int
) -> Iterator[tuple[Sample, list[Sample], Any]]:
    """Each sample that eager takes, all of them, and what eager gives; the others are ok."""
    samples = list(samples_of(info, dtype, limit))
    for sample in samples:
        torch.manual_seed(SEED)
        try:
            expected = sample.call(*sample.copies())
        except Exception as error:
            outcome.add("ok", f"eager: {error}")
            continue
        yield sample, samples, expected


def attempt(outcome: Outcome, shown: str, make: Callable[[], Any]) -> Any:
    """What ``make`` gives; None where it raises, which the outcome tells."""
    try:
        return make()
    except sf.StillframeError as error:
        kind = "data" if isinstance(error, sf.DataDependentError) else "refused"
        outcome.add(kind, f"{shown}: {type(error).__name__}: {error.what}")
    except Exception as error:
        outcome.add("error", f"{shown}: {type(error).__name__}: {error}"[:400])
    return None


def name_of(info: Any) -> str:
    """``name`` or ``name.variant``."""
    return f"{info.name}.{info.variant_test_name}" if info.variant_test_name else info.name


def check_sample(
    outcome: Outcome, sample: Sample, samples: list[Sample], expected: Any, mode: str, library: str
) -> None:
    """Trace one sample; run the graph on it, and on others that it admits."""
    metadata_only = outcome.op.split(".")[0] in METADATA_ONLY
    torch.manual_seed(SEED)
    graph = attempt(outcome, sample.shown, lambda: trace(sample, mode, library))
    if graph is None:
        return
    others = []
    if mode == "symbolic" and library == "stillframe":
        others = [s for s in samples if s is not sample and s.key == sample.key]
        others = [s for s in others if admits(graph, s.tensors)]
        outcome.reruns += len(others)
    for run in (sample, *others):
        try:
            torch.manual_seed(SEED)
            want = expected if run is sample else run.call(*run.copies())
        except Exception:
            continue
        try:
            torch.manual_seed(SEED)
            compare(graph(*run.copies()), want, metadata_only)
        except Exception as error:
            at = "" if run is sample else f" at {[tuple(t.shape) for t in run.tensors]}"
            outcome.add("wrong", f"{sample.shown}{at}: {type(error).__name__}: {error}"[:600])
            return
    outcome.add("ok")


def trace(sample: Sample, mode: str, library: str) -> Any:
    """The graph of a sample by one of the libraries."""
    if library == "stillframe":
        return sf.make_fx(sample.call, tracing_mode=mode)(*sample.copies())
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(sample.call, tracing_mode=mode)(*sample.copies())


def admits(graph: torch.fx.GraphModule, tensors: list[torch.Tensor]) -> bool:
    """Whether tensors fit the metadata of the placeholders and the guards of the trace."""
    values: dict[Any, int] = {}
    placeholders = [n for n in graph.graph.nodes if n.op == "placeholder"]
    for node, real in zip(placeholders, tensors, strict=True):
        fake = node.meta["val"]
        if not isinstance(fake, FakeTensor) or real.layout is not torch.strided:
            return False
        if fake.dtype is not real.dtype or len(fake.sizes) != real.dim():
            return False
        pairs = [*zip(fake.sizes, real.shape, strict=True), (fake.offset, real.storage_offset())]
        pairs += zip(fake.strides, real.stride(), strict=True)
        for form, number in pairs:
            if isinstance(form, Expr) and form.op == "symbol":
                if values.setdefault(form, int(number)) != number or number in (0, 1):
                    return False
        if any(evaluate_size(form, values) != number for form, number in pairs):
            return False
    return all(evaluate(guard.expr, values) for guard in graph.shape_env.guards)


def evaluate_size(form: Any, values: dict[Any, int]) -> int:
    return int(evaluate(form, values)) if isinstance(to_size(form), Expr) else int(form)


def compare(got: Any, want: Any, metadata_only: bool) -> None:
    """Equal structure, values, dtypes and strides."""
    got_leaves, got_spec = pytree.tree_flatten(got)
    want_leaves, want_spec = pytree.tree_flatten(want)
    if len(got_leaves) != len(want_leaves):
        raise AssertionError(f"structure {got_spec} instead of {want_spec}")
    for a, b in zip(got_leaves, want_leaves, strict=True):
        if not isinstance(b, torch.Tensor):
            if a != b and not (a != a and b != b):
                raise AssertionError(f"{a!r} instead of {b!r}")
        elif metadata_only:
            if (a.shape, a.dtype) != (b.shape, b.dtype):
                raise AssertionError(f"{a.shape} {a.dtype} instead of {b.shape} {b.dtype}")
        else:
            torch.testing.assert_close(a, b, equal_nan=True, check_stride=False)


# -- all of them ----------------------------------------------------------------------------------


def run_one(task: tuple[int, str, str, int, str]) -> Outcome:
    """One operator in one mode, by position in ``op_db``; the work of a process."""
    index, mode, dtype, limit, library = task
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    info = op_db[index]
    try:
        return check_operator(info, mode, getattr(torch, dtype), limit, library)
    except Exception as error:
        outcome = Outcome(info.name, mode)
        outcome.add("error", f"the samples themselves: {type(error).__name__}: {error}"[:300])
        return outcome


def tasks(options: argparse.Namespace) -> list[tuple[int, str, str, int, str]]:
    """What to run, by the options."""
    wanted = [name for name in options.ops.split(",") if name]
    libraries = ["stillframe", *(["torch"] if options.torch else [])]
    found = []
    for index, info in list(enumerate(op_db))[:: options.every]:
        if wanted and info.name not in wanted:
            continue
        if getattr(torch, options.dtype) not in info.dtypes:
            continue
        for mode in options.modes.split(","):
            found += [(index, mode, options.dtype, options.samples, lib) for lib in libraries]
    return found


def read_expectations(path: Path = EXPECTATIONS) -> dict[tuple[str, str, str], set[str]]:
    """``(op, mode, dtype) -> outcomes`` of the lines ``op mode outcome[,outcome] [dtype]  # why``.

    Lines without a dtype have ``""`` for it and are for all.
    """
    table = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry, _, reason = line.partition("#")
        if entry.strip():
            op, mode, outcomes, *dtype = entry.split()
            if not reason.strip():
                raise ValueError(f"{path.name}: no reason given for {op} {mode}")
            table[op, mode, dtype[0] if dtype else ""] = set(outcomes.split(","))
    return table


def surprises(outcomes: list[Outcome], dtype: str, path: Path = EXPECTATIONS) -> list[str]:
    """Where the outcomes are not those that the expectation file gives."""
    expected = read_expectations(path)
    found = []
    for outcome in outcomes:
        of_all = expected.get((outcome.op, outcome.mode, ""), {"ok"})
        want = expected.get((outcome.op, outcome.mode, dtype), of_all)
        if outcome.worst not in want:
            detail = outcome.first.get(outcome.worst, "")
            wanted = " or ".join(sorted(want))
            what = f"{outcome.op} {outcome.mode} {outcome.worst}"
            found.append(f"{what}, expected {wanted}: {detail}")
    return found


def summarise(outcomes: dict[str, list[Outcome]]) -> None:
    """One line per library and mode: operators by worst outcome, and samples that agree."""
    print(
        f"\n{'library':12}{'mode':10}"
        + "".join(f"{k:>9}" for k in SEVERITY)
        + "  samples ok  reruns"
    )
    for library, found in outcomes.items():
        for mode in MODES:
            here = [o for o in found if o.mode == mode]
            if here:
                worst = collections.Counter(o.worst for o in here)
                total = sum(sum(o.counts.values()) for o in here)
                fine = sum(o.counts["ok"] for o in here)
                cells = "".join(f"{worst[k]:9}" for k in SEVERITY)
                print(
                    f"{library:12}{mode:10}{cells}  {fine}/{total}  {sum(o.reruns for o in here)}"
                )


def main() -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--ops", default="", help="only these names, with commas")
    p.add_argument("--modes", default=",".join(MODES))
    p.add_argument("--dtype", default="float32")
    p.add_argument("--samples", type=int, default=4, help="samples of each operator")
    p.add_argument("--every", type=int, default=1, help="only every n-th operator")
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--torch", action="store_true", help="torch's own make_fx beside it")
    p.add_argument("--quiet", action="store_true", help="no details")
    options = p.parse_args()
    work = tasks(options)
    outcomes: dict[str, list[Outcome]] = collections.defaultdict(list)
    start = time.perf_counter()
    with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        for done, (task, outcome) in enumerate(zip(work, pool.map(run_one, work), strict=True)):
            outcomes[task[4]].append(outcome)
            if done % 100 == 99:
                spent = time.perf_counter() - start
                print(f"  {done + 1}/{len(work)} in {spent:.0f} s", file=sys.stderr, flush=True)
            if not options.quiet and outcome.worst != "ok" and task[4] == "stillframe":
                detail = outcome.first[outcome.worst]
                print(f"{outcome.op} {outcome.mode} {outcome.worst}  # {' '.join(detail.split())}")
    summarise(outcomes)
    unexpected = surprises(outcomes["stillframe"], options.dtype)
    print(f"\n{len(unexpected)} surprises" + "".join(f"\n  {line}" for line in unexpected))
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
