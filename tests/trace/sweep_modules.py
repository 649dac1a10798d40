"""Capture torch's own module samples: ``python -m tests.trace.sweep_modules``.

Every module of ``module_db`` is made with its sample constructors, and called with its sample
inputs in three phases: training, evaluation, and evaluation without gradients, where some modules
take another path. Each call is captured in five modes: by ``stillframe.make_fx`` (real, fake,
symbolic; parameters and buffers are inputs, by ``torch.func.functional_call``) and by
``stillframe.export`` (static, and auto with all sizes open). The capture runs beside eager with
one seed: results, buffers, and of exported programs in training also the gradients, are compared.
In symbolic and auto mode it runs again at other sizes: wherever one size occurs in the inputs,
another one in its place, if eager takes it. With ``--torch`` torch's own stack does the same.

The outcome of a module in a phase and mode is the worst of its samples:

- ``ok``: all captures agree with eager;
- ``refused``: a typed error of stillframe;
- ``error``: any other exception: a defect;
- ``wrong``: another result than eager, or the module itself was changed: a defect.

``sweep_modules_expectations.txt`` beside this file lists what is not ``ok``, with reasons.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import copy
import itertools
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tests.trace.sweep_make_fx import SEVERITY, admits
from torch import nn
from torch.testing._internal.common_modules import module_db
from torch.utils import _pytree as pytree

import stillframe as sf
from stillframe.shapes.env import ShapeEnv

PHASES = ("train", "eval", "infer")
MODES = ("real", "fake", "symbolic", "static", "auto")
TRACED = MODES[:3]
OPEN_SIZES = ("symbolic", "auto")
SEED = 42
EXPECTATIONS = Path(__file__).with_name("sweep_modules_expectations.txt")

Key = tuple[str, str, str]


@dataclass
class Outcome:
    """What the samples of one module gave in one phase and mode, by one library.

    Attributes:
        found: for each sample its kind, and the story if that is not ``ok``.
        complete: these are all samples of the module.
        reruns, admitted: calls at other sizes that eager takes, and those that the capture takes.
    """

    key: Key
    library: str
    complete: bool = True
    found: list[tuple[str, str]] = field(default_factory=list)
    reruns: int = 0
    admitted: int = 0

    def add(self, kind: str, detail: str = "") -> None:
        self.found.append((kind, " ".join(detail.split())[:500]))

    @property
    def counts(self) -> collections.Counter[str]:
        return collections.Counter(kind for kind, _ in self.found)

    @property
    def worst(self) -> str:
        return max(self.counts, key=SEVERITY.index, default="ok")

    @property
    def detail(self) -> str:
        """The story of the first of the worst."""
        return next((text for kind, text in self.found if kind == self.worst), "")


@dataclass(frozen=True)
class Call:
    """Arguments of a module, with the tensors taken out so that others can take their place."""

    tensors: list[torch.Tensor]
    at: list[int]
    leaves: list[Any]
    spec: pytree.TreeSpec

    @staticmethod
    def of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        at = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        return Call([leaves[i].detach() for i in at], at, leaves, spec)

    def copies(self) -> list[torch.Tensor]:
        return [t.clone() for t in self.tensors]

    def filled(self, tensors: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """``(args, kwargs)`` with these tensors."""
        leaves = list(self.leaves)
        for i, tensor in zip(self.at, tensors, strict=True):
            leaves[i] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return args, kwargs

    def resized(self, change: dict[int, int]) -> Call:
        """The same call with some sizes replaced; the data is repeated to fit."""
        return Call([_resized(t, change) for t in self.tensors], self.at, self.leaves, self.spec)

    def other_sizes(self) -> Iterator[Call]:
        """Calls in which one size is another one, everywhere it occurs; then all of them."""
        found = sorted({n for t in self.tensors for n in t.shape if n > 1})
        if not found:
            return
        for size in found:
            yield self.resized({size: size + 1})
            yield self.resized({size: size + 2})
        yield self.resized({size: size + 2 for size in found})

    def __str__(self) -> str:
        rest = [leaf for i, leaf in enumerate(self.leaves) if i not in self.at]
        return f"{[tuple(t.shape) for t in self.tensors]}{rest or ''}"


def _resized(t: torch.Tensor, change: dict[int, int]) -> torch.Tensor:
    for dim, size in enumerate(t.shape):
        if size in change:
            t = t.index_select(dim, torch.arange(change[size]) % size)
    return t.clone()


@dataclass(frozen=True)
class Sample:
    """A module in a phase, and a call of it.

    The module is exported, and never run: eager runs copies. So it must stay as it is.
    """

    module: nn.Module
    call: Call
    phase: str
    shown: str


def samples_of(info: Any, phase: str, dtype: torch.dtype, limit: int) -> Iterator[Sample]:
    """Up to ``limit`` samples of a module, spread over all of them; 0: all."""
    training = phase == "train"
    torch.manual_seed(SEED)
    found = list(info.module_inputs_func(info, "cpu", dtype, False, training))
    count = len(found) if limit == 0 else min(limit, len(found))
    for sample in (found[i * len(found) // count] for i in range(count)):
        made, given = sample.constructor_input, sample.forward_input
        torch.manual_seed(SEED)
        module = info.module_cls(*made.args, **made.kwargs).to(dtype).train(training)
        call = Call.of(given.args, given.kwargs)
        if any(isinstance(p, nn.UninitializedParameter) for p in module.parameters()):
            args, kwargs = call.filled(call.copies())
            module(*args, **kwargs)
        shown = [_brief(a) for a in made.args]
        shown += [f"{k}={_brief(v)}" for k, v in made.kwargs.items()]
        yield Sample(module, call, phase, f"({', '.join(shown)}) {call}")


def _brief(value: Any) -> str:
    return type(value).__name__ if isinstance(value, (nn.Module, torch.Tensor)) else repr(value)


# -- runs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What a call gave: its value, the buffers after it, and gradients by name (or none)."""

    value: Any
    buffers: dict[str, torch.Tensor]
    gradients: dict[str, Any]


def gradients_of(value: Any, parameters: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Gradients of the sum of the results with respect to the parameters."""
    leaves = [t for t in pytree.tree_leaves(value) if isinstance(t, torch.Tensor)]
    total = sum(t.sum() for t in leaves if t.requires_grad)
    wanted = {name: p for name, p in parameters.items() if p.requires_grad}
    if not isinstance(total, torch.Tensor) or not wanted:
        return {}
    found = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
    return dict(zip(wanted, found, strict=True))


def call_module(module: nn.Module, call: Call, gradients: bool) -> Result:
    """Run a module (or the module of a program) with the seed."""
    args, kwargs = call.filled(call.copies())
    torch.manual_seed(SEED)
    value = module(*args, **kwargs)
    parameters = dict(module.named_parameters()) if gradients else {}
    return Result(value, dict(module.named_buffers()), gradients_of(value, parameters))


def phase_context(phase: str) -> contextlib.AbstractContextManager[Any]:
    return torch.no_grad() if phase == "infer" else contextlib.nullcontext()


class Capture:
    """A captured sample.

    Attributes:
        gradients: whether it is differentiable.
    """

    gradients: bool

    def run(self, call: Call) -> Result | None:
        """Run it on a call, always from the state of the sample; None if it takes no such call."""
        raise NotImplementedError


class Traced(Capture):
    """A graph by ``make_fx``, of a function of parameters, buffers and the tensors of the call."""

    gradients = False

    def __init__(self, sample: Sample, mode: str, make_fx: Callable[..., Any]) -> None:
        self.parameters = dict(sample.module.named_parameters())
        self.buffers = dict(sample.module.named_buffers())
        skeleton = copy.deepcopy(sample.module)
        call = sample.call

        def f(parameters: Any, buffers: Any, tensors: Any) -> Any:
            args, kwargs = call.filled(tensors)
            return torch.func.functional_call(skeleton, (parameters, buffers), args, kwargs)

        torch.manual_seed(SEED)
        self.graph = make_fx(f, tracing_mode=mode)(*self._inputs(call)[0])

    def _inputs(self, call: Call) -> tuple[tuple[Any, ...], dict[str, torch.Tensor]]:
        parameters = {k: v.detach().clone() for k, v in self.parameters.items()}
        for name, parameter in self.parameters.items():
            parameters[name].requires_grad_(parameter.requires_grad)
        buffers = {k: v.clone() for k, v in self.buffers.items()}
        return (parameters, buffers, call.copies()), buffers

    def run(self, call: Call) -> Result | None:
        inputs, buffers = self._inputs(call)
        if isinstance(getattr(self.graph, "shape_env", None), ShapeEnv):
            leaves = [t for t in pytree.tree_leaves(inputs) if isinstance(t, torch.Tensor)]
            if not admits(self.graph, leaves):
                return None
        torch.manual_seed(SEED)
        return Result(self.graph(*inputs), buffers, {})


class Exported(Capture):
    """A program by ``export``."""

    def __init__(self, sample: Sample, mode: str, export: Callable[..., Any]) -> None:
        self.gradients = sample.phase == "train"
        self.program = export(sample.module, sample.call, mode)

        self.buffers = {k: b.clone() for k, b in sample.module.named_buffers()}

    def run(self, call: Call) -> Result | None:
        module = self.program.module()
        for name, buffer in module.named_buffers():  # its calls may have changed them
            buffer.detach().copy_(self.buffers[name])
        try:
            return call_module(module, call, self.gradients)
        except sf.CallError:
            return None
        except AssertionError as error:  # how torch's programs refuse a call
            if "Guard failed" in str(error):
                return None
            raise


def export_ours(module: nn.Module, call: Call, mode: str) -> Any:
    args, kwargs = call.filled(call.copies())
    return sf.export(module, args, kwargs, dynamic_shapes=sf.auto if mode == "auto" else None)


def export_theirs(module: nn.Module, call: Call, mode: str) -> Any:
    module = copy.deepcopy(module)  # their programs write to its buffers
    args, kwargs = call.filled(call.copies())
    dims = None
    if mode == "auto":
        auto = torch.export.Dim.AUTO
        by_argument = pytree.tree_map(
            lambda t: dict.fromkeys(range(t.dim()), auto) if isinstance(t, torch.Tensor) else None,
            (args, kwargs),
        )
        names = list(kwargs)
        dims = (*by_argument[0], *(by_argument[1][k] for k in names))
    return torch.export.export(module, args, kwargs, dynamic_shapes=dims)


def capture(sample: Sample, mode: str, library: str) -> Capture:
    """A sample captured by one of the libraries."""
    if library == "stillframe":
        if mode in TRACED:
            return Traced(sample, mode, sf.make_fx)
        return Exported(sample, mode, export_ours)
    if mode in TRACED:
        from torch.fx.experimental.proxy_tensor import make_fx

        return Traced(sample, mode, make_fx)
    return Exported(sample, mode, export_theirs)


# -- comparing ------------------------------------------------------------------------------------


def check_sample(outcome: Outcome, sample: Sample) -> None:
    """Capture one sample; run the capture on its call, and at other sizes where they are open."""
    _, phase, mode = outcome.key
    before = copy.deepcopy(sample.module.state_dict())
    with phase_context(phase):
        try:
            captured = capture(sample, mode, outcome.library)
        except sf.StillframeError as error:
            outcome.add("refused", f"{sample.shown}: {type(error).__name__}: {error.what}")
            return
        except Exception as error:
            outcome.add("error", f"{sample.shown}: {type(error).__name__}: {error}")
            return
        # torch's own graphs of make_fx do not say which sizes they are for
        reruns = mode in (OPEN_SIZES if outcome.library == "stillframe" else ("auto",))
        others = sample.call.other_sizes() if reruns else ()
        for call in itertools.chain((sample.call,), others):
            problem = difference(outcome, captured, sample, call)
            if problem:
                outcome.add("wrong", f"{sample.shown} called with {call}: {problem}")
                return
    try:
        compare_tables("state of the module", sample.module.state_dict(), before)
    except AssertionError as error:
        outcome.add("wrong", f"{sample.shown}: {error}")
        return
    outcome.add("ok")


def difference(outcome: Outcome, captured: Capture, sample: Sample, call: Call) -> str:
    """What differs between a capture and eager on a call; "" if nothing."""
    first = call is sample.call
    try:
        want = call_module(copy.deepcopy(sample.module), call, captured.gradients)
    except Exception as error:
        return f"eager: {error}" if first else ""
    outcome.reruns += not first
    try:
        got = captured.run(call)
        if got is None:
            return "the call of the capture is refused" if first else ""
        outcome.admitted += not first
        compare(got, want)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def compare(got: Result, want: Result) -> None:
    """Raise AssertionError for the first difference."""
    got_leaves, got_spec = pytree.tree_flatten(got.value)
    want_leaves, want_spec = pytree.tree_flatten(want.value)
    if got_spec != want_spec:
        raise AssertionError(f"structure {got_spec} instead of {want_spec}")
    for i, (a, b) in enumerate(zip(got_leaves, want_leaves, strict=True)):
        _close(f"result {i}", a, b)
    compare_tables("buffers", got.buffers, want.buffers)
    if got.gradients:
        compare_tables("gradients", got.gradients, want.gradients)


def compare_tables(what: str, got: dict[str, Any], want: dict[str, Any]) -> None:
    if got.keys() != want.keys():
        raise AssertionError(f"{what}: {sorted(got)} instead of {sorted(want)}")
    for name in want:
        _close(f"{what}: {name}", got[name], want[name])


def _close(place: str, a: Any, b: Any) -> None:
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        if type(a) is not type(b) or a != b:
            raise AssertionError(f"{place}: {a!r} instead of {b!r}")
        return
    torch.testing.assert_close(a, b, equal_nan=True, msg=lambda m: f"{place}: {m}")


# -- all of them ----------------------------------------------------------------------------------

Task = tuple[int, str, str, str, int, str]


def run_one(task: Task) -> Outcome:
    """One module, phase, mode and library, by position in ``module_db``; the work of a process."""
    index, phase, mode, dtype, limit, library = task
    warnings.filterwarnings("ignore")
    logging.getLogger("torch").setLevel(logging.CRITICAL)
    torch.set_num_threads(1)
    info = module_db[index]
    outcome = Outcome((info.name, phase, mode), library)
    for sample in samples_of(info, phase, getattr(torch, dtype), limit):
        check_sample(outcome, sample)
    outcome.complete = limit == 0 or len(outcome.found) < limit
    return outcome


def tasks(options: argparse.Namespace) -> list[Task]:
    """What to run, by the options."""
    wanted = [name for name in options.modules.split(",") if name]
    libraries = ["stillframe", *(["torch"] if options.torch else [])]
    found = []
    for index, info in list(enumerate(module_db))[options.first :: options.every]:
        if wanted and info.name not in wanted and info.name.removeprefix("nn.") not in wanted:
            continue
        for phase in options.phases.split(","):
            for mode in options.modes.split(","):
                for library in libraries:
                    found.append((index, phase, mode, options.dtype, options.samples, library))
    return found


def read_expectations(path: Path = EXPECTATIONS) -> dict[Key, tuple[str, str]]:
    """``(module, phase, mode) -> (outcome, text)`` of the file's lines.

    A line is ``module phase mode outcome text  # reason``. A ``*`` stands for every phase or mode;
    the text occurs in all stories of that outcome.
    """
    table: dict[Key, tuple[str, str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry, _, reason = line.partition("#")
        if not entry.strip():
            continue
        module, phase, mode, outcome, *text = entry.split()
        if not reason.strip():
            raise ValueError(f"{path.name}: no reason given for {module} {phase} {mode}")
        for p, m in itertools.product(
            PHASES if phase == "*" else (phase,), MODES if mode == "*" else (mode,)
        ):
            table[module, p, m] = (outcome, " ".join(text))
    return table


def surprises(outcomes: list[Outcome]) -> list[str]:
    """What the expectation file does not give, and its entries that are not needed any more."""
    expected = read_expectations()
    lines = []
    for outcome in outcomes:
        want, text = expected.get(outcome.key, ("ok", ""))
        head = " ".join(outcome.key)
        lines += [
            f"{head} {kind}: {story}"
            for kind, story in outcome.found
            if kind != "ok" and (kind != want or text not in story)
        ][:1]
        if outcome.worst == "ok" != want and outcome.complete:
            lines.append(f"{head} is ok, expected {want}")
    return lines


def summarise(outcomes: list[Outcome]) -> None:
    """One line per library and mode: modules by worst outcome, and samples that agree."""
    heads = "".join(f"{k:>9}" for k in SEVERITY)
    print(f"\n{'library':12}{'mode':10}{heads}  samples ok  other sizes taken")
    for library, mode in itertools.product(("stillframe", "torch"), MODES):
        here = [o for o in outcomes if o.library == library and o.key[2] == mode]
        if not here:
            continue
        worst = collections.Counter(o.worst for o in here)
        cells = "".join(f"{worst[k]:9}" for k in SEVERITY)
        fine = f"{sum(o.counts['ok'] for o in here)}/{sum(o.counts.total() for o in here)}"
        taken = f"{sum(o.admitted for o in here)}/{sum(o.reruns for o in here)}"
        print(f"{library:12}{mode:10}{cells}  {fine:10}  {taken if mode in OPEN_SIZES else ''}")


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--modules", default="", help="only these names, with commas")
    p.add_argument("--modes", default=",".join(MODES))
    p.add_argument("--phases", default=",".join(PHASES))
    p.add_argument("--dtype", default="float32")
    p.add_argument("--samples", type=int, default=4, help="samples of each module; 0: all")
    p.add_argument("--every", type=int, default=1, help="only every n-th module")
    p.add_argument("--first", type=int, default=0, help="of these, the first one's position")
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--torch", action="store_true", help="torch's own capture beside it")
    p.add_argument("--quiet", action="store_true", help="no details")
    return p


def main() -> int:
    options = parser().parse_args()
    work = tasks(options)
    outcomes: list[Outcome] = []
    start = time.perf_counter()
    with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        for outcome in pool.map(run_one, work):
            outcomes.append(outcome)
            if len(outcomes) % 100 == 0 or len(outcomes) == len(work):
                spent = time.perf_counter() - start
                done = f"  {len(outcomes)}/{len(work)} in {spent:.0f} s"
                print(done, file=sys.stderr, flush=True)
            if not options.quiet and outcome.worst != "ok":
                label = "" if outcome.library == "stillframe" else "torch: "
                line = f"{label}{' '.join(outcome.key)} {outcome.worst}"
                print(f"{line}  # {outcome.detail}", flush=True)
    summarise(outcomes)
    unexpected = surprises([o for o in outcomes if o.library == "stillframe"])
    print(f"\n{len(unexpected)} surprises" + "".join(f"\n  {line}" for line in unexpected))
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
