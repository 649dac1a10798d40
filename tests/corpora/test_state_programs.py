"""Programs with Python state: the exported program is right or refused, in both modes.

``python -m tests.corpora.test_state_programs [--plain]`` prints what becomes of each.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import pytest
from tests.corpora import (
    state_programs_containers,
    state_programs_names,
    state_programs_objects,
    state_programs_tensors,
)
from tests.corpora.state_programs import PROGRAMS, Program, Ran, run

import stillframe as sf
from stillframe.errors import StillframeError

_FILES = (
    state_programs_containers,
    state_programs_names,
    state_programs_objects,
    state_programs_tensors,
)  # fmt: skip  (importing them fills PROGRAMS)

by_name = pytest.mark.parametrize("item", [pytest.param(p, id=p.name) for p in PROGRAMS])


def strictly(mod: Any, args: Any, kwargs: Any) -> Any:
    return sf.export(mod, args, kwargs, strict=True)


def plainly(mod: Any, args: Any, kwargs: Any) -> Any:
    return sf.export(mod, args, kwargs)


def problem(ran: Ran, *, frozen: bool = False) -> str:
    """What is not as it must be; empty for a program that is right or refused.

    Args:
        frozen: a value from outside is kept: calls may differ once the world has changed.
    """
    if ran.error is not None and not isinstance(ran.error, StillframeError):
        return f"an error that is not ours: {ran.error!r}"
    wrong = [w for w in ran.wrong if w[0] < 1 or not frozen]
    return f"wrong: {wrong}" if wrong else ""


def test_there_are_enough() -> None:
    assert len({item.name for item in PROGRAMS}) == len(PROGRAMS) >= 80


@pytest.mark.filterwarnings("ignore")
@by_name
def test_strict_capture_is_right_or_refuses(item: Program) -> None:
    ran = run(item, strictly)
    assert not problem(ran, frozen=bool(item.frozen))
    if item.runs:
        assert ran.error is None
    if item.frozen and ran.error is None:
        assert any(item.frozen in note for note in ran.notes), ran.notes


@pytest.mark.filterwarnings("ignore")
@by_name
def test_plain_tracing_is_right_or_refuses_or_cannot_see(item: Program) -> None:
    ran = run(item, plainly)
    if item.spent:
        assert isinstance(ran.error, sf.SideEffectError)
        return
    found = problem(ran)
    if item.unseen:
        if not found:
            pytest.fail("plain tracing gets this right: it needs no excuse")
        pytest.skip(item.unseen)
    assert not found


def main() -> None:
    """Print the outcome of every program, and how many are silently wrong."""
    export = plainly if "--plain" in sys.argv else strictly
    warnings.simplefilter("ignore")
    counts = {"WRONG": 0, "right": 0, "refused": 0}
    for item in PROGRAMS:
        ran = run(item, export)
        found = problem(ran, frozen=bool(item.frozen))
        kind = "WRONG" if found else "refused" if ran.error is not None else "right"
        counts[kind] += 1
        first = str(ran.error).splitlines()[0] if ran.error is not None else ""
        print(f"{item.name:50} {kind:8} {found or first}"[:180])
    print(f"{len(PROGRAMS)} programs: {counts}")


if __name__ == "__main__":
    main()
