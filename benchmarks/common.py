"""What the benchmark scripts share: the libraries compared, fair timing, tables and targets.

Every figure that is judged is a ratio of medians from one process on one machine. Absolute times
are printed for orientation and asserted nowhere.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
if str(SOURCE) not in sys.path:  # a checkout works without being installed
    sys.path.insert(0, str(SOURCE))

from models import Inputs, Model, warm_up  # noqa: E402

TOLERANCE = 1e-4


# --- the libraries -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Library:
    """One way to export: ``export(module, args, kwargs, dynamic_shapes)`` and its ``Dim``."""

    name: str
    Dim: Callable[..., Any]
    export: Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]

    def capture(self, module: nn.Module, model: Model, inputs: Inputs, *, dynamic: bool) -> Any:
        """Export ``module`` with ``inputs``, with the model's dims or with all sizes fixed."""
        args, kwargs = inputs
        return self.export(module, args, kwargs, model.dims(self.Dim) if dynamic else None)


def _torch() -> Library:
    import torch.export

    def export(module: nn.Module, args: Any, kwargs: Any, shapes: Any) -> Any:
        return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)

    return Library("torch", torch.export.Dim, export)


def _stillframe() -> Library:
    import stillframe

    def export(module: nn.Module, args: Any, kwargs: Any, shapes: Any) -> Any:
        return stillframe.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)

    return Library("stillframe", stillframe.Dim, export)


_LIBRARIES: dict[str, Callable[[], Library]] = {"torch": _torch, "stillframe": _stillframe}
LIBRARY_NAMES = tuple(_LIBRARIES)


def libraries(choice: str) -> list[Library]:
    """The libraries that ``--lib`` names (``both``, ``torch`` or ``stillframe``), warmed up."""
    found = [_LIBRARIES[name]() for name in (LIBRARY_NAMES if choice == "both" else (choice,))]
    subject = warm_up()
    for library in found:
        module, inputs = subject.build(), subject.example()
        for dynamic in (True, False):
            library.capture(module, subject, inputs, dynamic=dynamic).module()
    return found


# --- correctness ---------------------------------------------------------------------------------


class Mismatch(Exception):
    """An exported program disagrees with eager: its speed would mean nothing."""


def check(program: Any, module: nn.Module, runs: Sequence[Inputs], label: str) -> None:
    """Run both on every input and compare structure, dtype, shape and values.

    Raises:
        Mismatch: they differ; the text names the run and the output leaf.
    """
    run = program.module()
    for index, (args, kwargs) in enumerate(runs):
        with torch.no_grad():
            want, want_spec = pytree.tree_flatten(module(*args, **kwargs))
            got, got_spec = pytree.tree_flatten(run(*args, **kwargs))
        if want_spec != got_spec:
            raise Mismatch(f"{label}, run {index}: output is {got_spec} instead of {want_spec}")
        for leaf, (a, b) in enumerate(zip(want, got, strict=True)):
            try:
                torch.testing.assert_close(b, a, rtol=TOLERANCE, atol=TOLERANCE)
            except AssertionError as error:
                raise Mismatch(f"{label}, run {index}, output {leaf}: {error}") from None


# --- timing --------------------------------------------------------------------------------------


@contextmanager
def collector(enabled: bool) -> Iterator[None]:
    """Set the garbage collector for a stretch of code; the old state returns afterwards."""
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        yield
    finally:
        (gc.enable if before else gc.disable)()


def timed(call: Callable[[], object]) -> float:
    """Seconds that ``call`` takes. Rubbish of earlier calls is collected before the clock starts,
    and the result dies after it stopped, so each call pays for its own garbage only."""
    gc.collect()
    start = time.perf_counter()
    value = call()
    seconds = time.perf_counter() - start
    del value
    return seconds


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    gc_enabled: bool = True,
    sample: Callable[[Callable[[], object]], float] = timed,
) -> dict[str, list[float]]:
    """Samples of every call, taken in turn, in an order that changes from round to round.

    Each shuffled round (seeded) is followed by its reverse, so drift of the machine, the position
    within a round and the neighbour that left the caches warm or cold fall on all calls alike.
    Callers warm up first.
    """
    names = list(calls)
    shuffle = random.Random(0).shuffle
    samples: dict[str, list[float]] = {name: [] for name in calls}
    with collector(gc_enabled):
        for index in range(rounds):
            if index % 2:
                names.reverse()
            else:
                shuffle(names)
            for name in names:
                samples[name].append(sample(calls[name]))
    return samples


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean; not a number for no values."""
    return statistics.geometric_mean(values) if values else float("nan")


def one_thread() -> None:
    """One kernel thread: capture is single-threaded Python, and a pool only adds noise."""
    torch.set_num_threads(1)


# --- results -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A bound on a ratio. ``value`` None: not measured in this run."""

    name: str
    value: float | None
    relation: str  # ">=" or "<="
    bound: float

    @property
    def met(self) -> bool | None:
        """True, False, or None when nothing was measured."""
        if self.value is None:
            return None
        return self.value >= self.bound if self.relation == ">=" else self.value <= self.bound

    def __str__(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:.3g}"
        verdict = {True: "met", False: "MISSED", None: "-"}[self.met]
        return f"{self.name}: {value} (target {self.relation} {self.bound:.3g}) {verdict}"


@dataclass
class Report:
    """What one script measured: printed, written as JSON, judged by ``--check``.

    ``rows`` are the raw measurements, ``figures`` named ratios worth a line in the table of
    everything, ``targets`` the ratios with a bound.
    """

    script: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)

    def finish(self, options: argparse.Namespace) -> int:
        """Print the targets, write ``--json``, and give the exit code that ``--check`` asks for."""
        if self.targets:
            print("\n" + "\n".join(f"  {target}" for target in self.targets))
        if options.json:
            Path(options.json).write_text(json.dumps(self.as_json(), indent=1) + "\n")
        bad = [target for target in self.targets if not target.met]
        if options.check and bad:
            for target in bad:
                print(f"check failed: {target}", file=sys.stderr)
            return 1
        return 0

    def as_json(self) -> dict[str, Any]:
        """Plain data: ``script``, ``meta``, ``rows``, ``figures``, ``targets`` (with ``met``)."""
        meta = {"torch": torch.__version__, "python": platform.python_version()}
        targets = [{**asdict(target), "met": target.met} for target in self.targets]
        return {
            "script": self.script,
            "meta": meta,
            "rows": self.rows,
            "figures": self.figures,
            "targets": targets,
        }


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table: the first column flush left, the others flush right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    print(f"\n{title}")
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
        print("  " + "  ".join(cells), flush=True)


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every script has: ``--lib``, ``--json``, ``--check``."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--lib", choices=("both", *LIBRARY_NAMES), default="both")
    made.add_argument("--json", metavar="FILE", help="also write the figures there")
    made.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    return made
