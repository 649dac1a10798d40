"""Every row of the table of symbolic-shape programs, exported by stillframe and called.

``python -m tests.corpora.test_shape_table`` prints the table beside torch.export: name, our
verdict, theirs, why they differ, and the totals.
"""

from __future__ import annotations

import collections
import sys
import warnings

import pytest
import torch
from tests.corpora.shape_programs import (
    Admitted,
    Program,
    Table,
    call,
    function,
    torch_verdict,
    unvaried,
    wrong_inside,
    wrong_outside,
    x_,
)
from tests.corpora.shape_programs_all import PROGRAMS

#: Statistics of too few numbers and what torch deprecates are no matter here.
pytestmark = pytest.mark.filterwarnings("ignore")


def _marked(row: Program) -> object:
    marks = pytest.mark.xfail(strict=True, reason=row.xfail) if row.xfail else ()
    return pytest.param(row, id=row.name, marks=marks)


@pytest.mark.parametrize("row", [_marked(row) for row in PROGRAMS])
def test_program(row: Program) -> None:
    """The verdict is the row's; the program equals the module inside and refuses outside.

    And the calls tell: every dim that is dynamic takes two sizes at least.
    """
    admitted = row.verdict.admit(row)
    assert not wrong_inside(row, admitted)
    assert not wrong_outside(row, admitted)
    assert not unvaried(row, admitted)


def test_rows_are_complete() -> None:
    """Names are unique, there are calls enough, and a difference from torch.export has a why."""
    names = collections.Counter(row.name for row in PROGRAMS)
    assert [name for name, count in names.items() if count > 1] == []
    assert [r.name for r in PROGRAMS if len(set(r.inside)) < 5 or len(r.outside) < 3] == []
    assert [r.name for r in PROGRAMS if bool(r.why) != _differs(r)] == []


def test_the_judge_sees_what_is_wrong() -> None:
    """A program of another module, calls that are not refused, and a dim that never varies."""
    table = Table()
    table(
        "doubled",
        lambda x: x * 2,
        lambda n: call(x_(n)),
        lambda d: ({0: d("n", max=9)},),
        3,
        (1, 2, 3, 4, 5),
        {1: "x", 10: "x", 12: "y"},
    )
    (row,) = table
    admitted = row.verdict.admit(row)
    assert wrong_inside(row, admitted) == []
    other = Admitted(admitted.program, function(lambda x: x * 3))
    assert len(wrong_inside(row, other)) == 5
    not_refused, unnamed = wrong_outside(row, admitted)
    assert "(1,)" in not_refused and "instead of a CallError" in not_refused
    assert "(12,)" in unnamed and "does not name y" in unnamed
    assert unvaried(row, admitted) == []
    row.inside[:] = [(4,)] * 5
    assert unvaried(row, admitted) == ["x.size(0)"]


def _differs(row: Program) -> bool:
    """Whether torch.export does otherwise: exports what is refused here, or the reverse."""
    if row.verdict.kind == "ok":
        return row.torch != "ok"
    return not row.torch.startswith("refuses")


def test_the_table_is_large_and_covers_every_verdict() -> None:
    kinds = collections.Counter(row.verdict.kind for row in PROGRAMS)
    assert len(PROGRAMS) >= 150
    assert set(kinds) == {
        "ok", "narrowed", "equality", "derived", "specialised", "data-dependent"
    }  # fmt: skip


def main() -> None:
    """Print the table and the totals; words on the command line select rows by name."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    chosen = [row for row in PROGRAMS if all(part in row.name for part in sys.argv[1:])]
    totals: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for row in chosen:
        mine, other = _our_verdict(row), torch_verdict(row)
        totals["stillframe"][mine.partition(":")[0]] += 1
        for group in ("all", row.verdict.kind):
            totals[f"torch.export, {group}"][other] += 1
        flag = "" if other == row.torch else f" (the table says {row.torch})"
        print(f"{row.name:70} {mine:16} {other + flag:36} {row.why}".rstrip())
    print(f"\n{len(chosen)} programs")
    for name, counts in totals.items():
        print(f"{name}: " + ", ".join(f"{kind} {count}" for kind, count in counts.most_common()))


def _our_verdict(row: Program) -> str:
    """The row's verdict if it holds; else what is not as the row says."""
    try:
        admitted = row.verdict.admit(row)
    except Exception as e:
        if row.xfail:
            return f"not yet {row.verdict.kind}: {row.xfail}"
        return f"not as expected: {type(e).__name__}: {e}"
    found = [*wrong_inside(row, admitted), *wrong_outside(row, admitted)]
    return f"wrong: {found}" if found else row.verdict.kind


if __name__ == "__main__":
    main()
