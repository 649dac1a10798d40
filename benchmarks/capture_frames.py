"""Capture the shared zoo's models as frames with guards, and compare with eager.

    python benchmarks/capture_frames.py [--cases 'hf_*,nn_*'] [--sizes static|varying|both]

``static``: a model is captured with its example. ``varying``: it is captured again with a second
size, by a frame state that has seen the first; the sizes that differ are symbols then. A capture is
called on the example and on the case's two other inputs, wherever its guards admit the call.

A line per capture: ok, refused (an error of ours, with what it says), or wrong (any other error,
and every difference from eager); how many guards and nodes there are; the time of the capture, and
of a call with its guards, as multiples of eager's time. Exit code 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

import torch  # noqa: E402
from benchmarks.zoo import zoo_folder  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402

import stillframe as sf  # noqa: E402
from stillframe.variables import FrameCapture, FrameState, Options, capture_frame  # noqa: E402

Call = tuple[tuple[Any, ...], dict[str, Any]]
OPTIONS = Options(allow_rnn=True)


@dataclass(frozen=True)
class Verdict:
    """What became of one capture.

    Attributes:
        word: ``"ok"``, ``"refused"`` or ``"wrong"``.
        why: what was said, if it is not ok.
        guards, nodes: how many.
        admitted: how many of the calls the guards admitted.
        capture_ratio, call_ratio: times as multiples of eager's.
    """

    word: str
    why: str = ""
    guards: int = 0
    nodes: int = 0
    admitted: int = 0
    capture_ratio: float = 0.0
    call_ratio: float = 0.0

    def line(self) -> str:
        """Columns of the table."""
        if self.word != "ok":
            return f"{self.word}: {' '.join(self.why.split())}"
        figures = f"{self.guards:6} {self.nodes:6} {self.admitted:3}"
        return f"ok {figures} {self.capture_ratio:8.1f} {self.call_ratio:6.2f}"


def capture_static(module: Any, calls: list[Call]) -> FrameCapture:
    """A capture for the sizes of the first call."""
    return capture_frame(module, *_fresh(calls[0]), options=OPTIONS)


def capture_varying(module: Any, calls: list[Call]) -> FrameCapture:
    """A capture for the sizes of the second call, after the first has been seen."""
    state = FrameState()
    capture_frame(module, *_fresh(calls[0]), frame_state=state, options=OPTIONS)
    return capture_frame(module, *_fresh(calls[1]), frame_state=state, options=OPTIONS)


WAYS = {"static": capture_static, "varying": capture_varying}


def judge(module: Any, calls: list[Call], way: str) -> Verdict:
    """Capture a module, and call the capture and the module on everything that it admits."""
    started = time.perf_counter()
    try:
        capture = WAYS[way](module, calls)
    except sf.StillframeError as error:
        return Verdict("refused", f"{type(error).__name__}: {error}")
    except Exception as error:
        return Verdict("wrong", f"{type(error).__name__}: {error}"[:300])
    took = time.perf_counter() - started
    try:
        admitted = _compare(module, capture, calls)
    except Exception as error:
        return Verdict("wrong", f"{type(error).__name__}: {error}"[:300])
    own = calls[1] if way == "varying" else calls[0]
    eager = best_of(lambda: module(*own[0], **own[1]))
    return Verdict(
        "ok",
        guards=len(capture.guards),
        nodes=len(capture.graph_module.graph.nodes),
        admitted=admitted,
        capture_ratio=took / eager,
        call_ratio=_call_time(capture, own) / eager,
    )


def _compare(module: Any, capture: FrameCapture, calls: list[Call]) -> int:
    admitted = 0
    for call in calls:
        ours, theirs = _fresh(call), _fresh(call)
        if capture.failure(*ours[0], **ours[1]) is not None:
            continue
        admitted += 1
        twin = copy.deepcopy(module)  # a module may change itself
        torch.manual_seed(0)
        want = twin(*theirs[0], **theirs[1])
        torch.manual_seed(0)
        got = capture(*ours[0], **ours[1])
        pairs = zip(pytree.tree_leaves(got), pytree.tree_leaves(want), strict=True)
        for one, other in pairs:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4, equal_nan=True)
        if type(got) is not type(want):
            raise AssertionError(f"a {type(got).__name__} and not a {type(want).__name__}")
    if not admitted:
        raise AssertionError("the guards admit no call, not even the captured one")
    return admitted


def _call_time(capture: FrameCapture, call: Call) -> float:
    """NaN for a module that changed itself so that the guards do not admit the call again."""
    if capture.failure(*call[0], **call[1]) is not None:
        return float("nan")
    return best_of(lambda: capture(*call[0], **call[1]))


def best_of(run: Callable[[], Any], times: int = 3) -> float:
    """The least time of some runs."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        run()
        found.append(time.perf_counter() - started)
    return min(found)


def _fresh(call: Call) -> Call:
    args, kwargs = copy.deepcopy(call)
    return args, kwargs


def calls_of(case: Any) -> tuple[Any, list[Call]]:
    """The module of a case of the zoo, and its three calls."""
    module, args, kwargs, _ = case.build()
    others = [(inputs, keywords or {}) for inputs, keywords in case.other_inputs()]
    return module, [(args, kwargs or {}), *others]


def zoo_cases(patterns: str) -> dict[str, Any] | None:
    """The cases whose names fit one of the globs; None: the zoo is not here."""
    folder = zoo_folder()
    if folder is None:
        return None
    sys.modules.pop("zoo", None)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    import zoo

    globs = patterns.split(",")
    return {
        name: case
        for name, case in zoo.CASES.items()
        if any(fnmatch.fnmatch(name, pattern) for pattern in globs)
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", default="*", help="globs on names, with commas")
    parser.add_argument("--sizes", default="both", choices=(*WAYS, "both"))
    options = parser.parse_args()
    cases = zoo_cases(options.cases)
    if cases is None:
        print("the zoo is not here: set STILLFRAME_ZOO to the folder with run_zoo.py")
        return 2
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    ways = tuple(WAYS) if options.sizes == "both" else (options.sizes,)
    counts: Counter[str] = Counter()
    print("case, sizes: verdict, guards, nodes, calls admitted, capture/eager, call/eager")
    for name, case in cases.items():
        module, calls = calls_of(case)
        for way in ways:
            with torch.no_grad():
                verdict = judge(module, calls, way)
            counts[f"{way} {verdict.word}"] += 1
            print(f"{name}, {way}: {verdict.line()}", flush=True)
    print(dict(counts))
    return 1 if any("wrong" in word for word in counts) else 0


if __name__ == "__main__":
    sys.exit(main())
