"""How many of the questions that real captures ask does the fact store answer, beside z3?

    python benchmarks/bench_decide.py [--cases 'hf_*,nn_*'] [--limit N] [--save FILE | --load FILE]

Every case of the zoo is captured with its dynamic dims. Each question that reaches ``Facts.decide``
for the first time is written down with the facts of that moment, as text. Then each different pair
is put to a fresh store, made from the text, and to z3. Printed: how many z3 decides, how many of
those the store decides, contradictions (there must be none), and what is left undecided.

``--save`` keeps the pairs and z3's answers, ``--load`` asks them again without capturing.
Questions with floats are asked but not counted: z3's reals do not round.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, ROOT / "src"):
    if str(folder) not in sys.path:  # a checkout works without being installed
        sys.path.insert(0, str(folder))

from stillframe.symbolic import Contradiction, Expr, Facts, parse, symbol  # noqa: E402

TARGET = 99.5
Z3_MILLISECONDS = 1000


@dataclass
class Question:
    """A question under facts, as text, and z3's answer: True, False, None, or "not asked"."""

    facts: list[str]
    floats: list[str]
    text: str
    case: str
    z3: Any = "not asked"


@dataclass
class Score:
    """What the answers come to."""

    asked: int = 0
    decided: int = 0
    z3_decides: int = 0
    both: int = 0
    with_floats: int = 0
    floats_decided: int = 0
    contradictions: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    micros: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Percent of what z3 decides that is decided."""
        return 100.0 * self.both / self.z3_decides if self.z3_decides else 100.0


# --- writing questions down ----------------------------------------------------------------------


class Notebook:
    """Different questions, in the order in which they were first asked."""

    def __init__(self) -> None:
        self.questions: dict[tuple[int, str], Question] = {}
        self._facts: dict[str, int] = {}
        self._current: tuple[Any, int, list[str], list[str]] | None = None

    def write(self, facts: Facts, asked: Expr, case: str) -> None:
        """Note ``asked`` under ``facts`` unless it has been noted before."""
        now = self._current
        if now is None or now[0] is not facts or now[1] != facts.generation:
            statements = facts.statements()
            floats = {str(s) for b in statements for s in b.free_symbols if s.sort == "float"}
            texts = sorted(str(b) for b in statements)
            now = self._current = (facts, facts.generation, texts, sorted(floats))
        floats = {*now[3], *(str(s) for s in asked.free_symbols if s.sort == "float")}
        number = self._facts.setdefault("\n".join(now[2]), len(self._facts))
        key = (number, str(asked))
        if key not in self.questions:
            self.questions[key] = Question(now[2], sorted(floats), str(asked), case)


@contextmanager
def listening(notebook: Notebook, case: str) -> Iterator[None]:
    """While this is open, questions new to a store are written down before they are answered."""
    original = Facts.decide

    def decide(self: Facts, expr: Any) -> bool | None:
        if isinstance(expr, Expr) and not expr.is_constant and not self.is_remembered(expr):
            notebook.write(self, expr, case)
        return original(self, expr)

    Facts.decide = decide  # type: ignore[method-assign]
    try:
        yield
    finally:
        Facts.decide = original  # type: ignore[method-assign]


def capture(globs: str, limit: int | None) -> Notebook:
    """The questions of the zoo's cases that match ``globs``."""
    from zoo import zoo_folder

    folder = zoo_folder()
    if folder is None:
        raise SystemExit("no zoo: set STILLFRAME_ZOO to the folder with run_zoo.py")
    del sys.modules["zoo"]
    sys.path.insert(0, str(folder))
    import zoo as cases

    import stillframe

    notebook = Notebook()
    for name, case in cases.CASES.items():
        if not any(fnmatch.fnmatch(name, g) for g in globs.split(",")):
            continue
        before, start = len(notebook.questions), time.perf_counter()
        try:
            module, args, kwargs, spec = case.build()
            dims = cases.to_dims(spec, stillframe.Dim)
            with listening(notebook, name):
                stillframe.export(module, args, kwargs, dynamic_shapes=dims, strict=False)
            ended = "ok"
        except Exception as error:  # a refusal: what was asked before it counts all the same
            ended = type(error).__name__
        seconds, more = time.perf_counter() - start, len(notebook.questions) - before
        print(f"  {name:<28} {more:5d} questions, {seconds:5.1f} s, {ended}", flush=True)
        if limit is not None and len(notebook.questions) >= limit:
            break
    return notebook


# --- asking again --------------------------------------------------------------------------------


def judge(questions: list[Question]) -> Score:
    """Put every question to a store made from its facts, and to z3 if it has not been asked yet."""
    from tests.symbolic.oracle_z3 import answer_of_z3

    score = Score()
    for q in questions:
        names = {name: symbol(name, "float") for name in q.floats}
        statements = [parse(t, names) for t in q.facts]
        asked = parse(q.text, names)
        answer, micros = _our_answer(statements, asked)
        score.micros.append(micros)
        score.asked += 1
        score.decided += answer is not None
        if q.z3 == "not asked":
            q.z3 = answer_of_z3(statements, asked, Z3_MILLISECONDS)
        if q.z3 == "floats":
            score.with_floats += 1
            score.floats_decided += answer is not None
            continue
        line = f"{q.text}    # {q.case}; z3: {q.z3}; facts: {'; '.join(q.facts)}"
        if q.z3 is None:
            if answer is None:
                score.open.append(line)
            continue
        score.z3_decides += 1
        score.both += answer is not None
        if answer is None:
            score.missed.append(line)
        elif answer is not q.z3:
            score.contradictions.append(line)
    return score


def _our_answer(statements: list[Expr], asked: Expr) -> tuple[bool | None, float]:
    facts = Facts()
    for statement in statements:
        try:
            facts.assume(statement)
        except Contradiction as error:
            raise SystemExit(f"facts that were recorded contradict each other: {error}") from error
    start = time.perf_counter()
    answer = facts.decide(asked)
    return answer, (time.perf_counter() - start) * 1e6


def show(score: Score, details: int) -> None:
    """Print the score."""
    print(f"questions       {score.asked}, of which with floats {score.with_floats}")
    print(f"decided         {score.decided} (with floats {score.floats_decided})")
    print(f"z3 decides      {score.z3_decides}")
    print(f"of these we     {score.both} = {score.rate:.2f} % (target {TARGET} %)")
    print(f"contradictions  {len(score.contradictions)} (target 0)")
    print(f"median          {statistics.median(score.micros or [0.0]):.1f} us a new question")
    for title, lines in (
        ("CONTRADICTIONS", score.contradictions),
        ("decided by z3 only", score.missed[:details]),
        ("decided by neither", score.open[: details // 4]),
    ):
        if lines:
            print(f"\n{title}:", *lines, sep="\n  ")


def main() -> int:
    """Capture or load, ask, print."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--cases", default="*", help="globs on names of zoo cases, with commas")
    p.add_argument("--limit", type=int, help="stop capturing after that many questions")
    p.add_argument("--save", type=Path, help="write the questions and z3's answers there")
    p.add_argument("--load", type=Path, help="ask the questions of a saved file")
    p.add_argument("--details", type=int, default=40, help="print that many undecided questions")
    p.add_argument("--json", type=Path, help="also write the figures there")
    p.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    options = p.parse_args()
    if options.load:
        questions = [Question(**row) for row in json.loads(options.load.read_text())]
    else:
        questions = list(capture(options.cases, options.limit).questions.values())
    if options.save:
        options.save.write_text(json.dumps([asdict(q) for q in questions]))
    score = judge(questions)
    show(score, options.details)
    if options.save:
        options.save.write_text(json.dumps([asdict(q) for q in questions]))
    if options.json:
        options.json.write_text(json.dumps(summary(score), indent=1) + "\n")
    missed = score.rate < TARGET or bool(score.contradictions)
    return 1 if options.check and missed else 0


def summary(score: Score) -> dict[str, Any]:
    """The figures, in the form of the other benchmarks."""
    rate, wrong = score.rate, len(score.contradictions)
    targets = [
        ("decided of what z3 decides, percent", rate, ">=", TARGET, rate >= TARGET),
        ("contradictions with z3", wrong, "<=", 0, wrong == 0),
    ]
    keys = ("name", "value", "relation", "bound", "met")
    return {
        "script": "bench_decide",
        "targets": [dict(zip(keys, t, strict=True)) for t in targets],
    }


if __name__ == "__main__":
    sys.exit(main())
