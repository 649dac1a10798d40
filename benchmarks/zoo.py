"""Run the shared zoo of real architectures through stillframe and judge the result.

    python benchmarks/zoo.py [--cases 'hf_*,nn_*'] [--jobs 2] [--strict] [--decompose] [--out file]

The zoo lies outside the repository: in $STILLFRAME_ZOO, or in ../shared/zoo beside it. Its own
``run_zoo.py`` does the work in a process of its own (a parent forks one process per case); this
script prints its table, sets it beside torch's results, and lists every failure with the first
line of its message. Exit code 1 when fewer than 90% of the cases are ok, when one gave a wrong
answer, or when a failure was not an error of ours: those must be told apart from crashes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BASELINES = {False: "baseline_torch_nonstrict.json", True: "baseline_torch_strict.json"}
LEAST_OK = 0.9

Rows = Mapping[str, Mapping[str, Any]]


def zoo_folder() -> Path | None:
    """Where the zoo is, or None. A set but wrong ``STILLFRAME_ZOO`` is None, not the default."""
    named = os.environ.get("STILLFRAME_ZOO")
    folder = Path(named) if named else ROOT.parent / "shared" / "zoo"
    return folder.resolve() if (folder / "run_zoo.py").is_file() else None


def run(folder: Path, out: Path, arguments: list[str], *, lib: str = "stillframe") -> int:
    """``run_zoo.py`` in a subprocess with this checkout importable; its exit code."""
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",  # the folder is not ours to write in
    }
    command = [sys.executable, str(folder / "run_zoo.py"), "--lib", lib, "--out", str(out)]
    return subprocess.run(command + arguments, env=environment, check=False).returncode


# --- whose error was it --------------------------------------------------------------------------


def our_errors() -> frozenset[str]:
    """Qualified names of StillframeError and everything derived from it."""
    sys.path.insert(0, str(ROOT / "src"))
    try:
        import stillframe
        from stillframe.errors import StillframeError

        _ = stillframe.export  # loads the whole capture stack, and what it derives
    finally:
        sys.path.remove(str(ROOT / "src"))

    def family(cls: type[Exception]) -> Iterator[type[Exception]]:
        yield cls
        for child in cls.__subclasses__():
            yield from family(child)

    return frozenset(f"{cls.__module__}.{cls.__qualname__}" for cls in family(StillframeError))


def is_ours(row: Mapping[str, Any], ours: frozenset[str]) -> bool:
    """Whether a case ended in an error of ours.

    A result file holds the bare class name and the end of the traceback. The traceback's last
    header line has the qualified name; where a long message pushed it out, the bare name decides.
    """
    raised = row.get("raised")
    if raised is None:  # a dead process, a timeout, or a difference found by the comparison
        return False
    header = rf"^((?:[\w]+\.)*{re.escape(raised)})(?::|$)"
    qualified: list[str] = re.findall(header, row.get("traceback", ""), re.MULTILINE)
    if qualified:
        return qualified[-1] in ours
    return raised in {name.rpartition(".")[2] for name in ours}


# --- the verdict ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What a result file says. ``alarms`` are the lines that must not exist."""

    cases: int
    ok: int
    failures: list[str]
    alarms: list[str]

    @property
    def passed(self) -> bool:
        """At least 90% ok and no alarm."""
        return self.ok >= LEAST_OK * self.cases and not self.alarms


def judge(rows: Rows, baseline: Rows, ours: frozenset[str]) -> Verdict:
    """Sort the cases of a result file into passes, failures and alarms."""
    failures, alarms = [], []
    for name, row in rows.items():
        status, message = row["status"], str(row.get("message", "no message"))
        first = message.partition(" | ")[0]  # run_zoo joins the lines of a message with bars
        if status == "ok":
            if not row.get("module_intact", True):
                alarms.append(f"{name}: the capture changed the module")
            if "repeat_error" in row:
                alarms.append(f"{name}: exporting again raised {row['repeat_error']}")
            if row.get("decompose_status", "ok") == "wrong":
                alarms.append(f"{name}: WRONG after decomposition: {row['decompose_message']}")
            continue
        mine = is_ours(row, ours)
        torch_too = baseline.get(name, {}).get("status", "unknown")
        failures.append(f"{name}: {status}, torch {torch_too}: {first}")
        if status == "wrong":
            alarms.append(f"{name}: WRONG RESULT: {first}")
        elif not mine:
            alarms.append(f"{name}: {status}, not a StillframeError: {first}")
    return Verdict(len(rows), sum(r["status"] == "ok" for r in rows.values()), failures, alarms)


def show(verdict: Verdict, rows: Rows, baseline: Rows) -> None:
    """Print the failures, the alarms, and what passes here and fails in torch."""
    ahead = [
        name
        for name, row in rows.items()
        if row["status"] == "ok" and baseline.get(name, {}).get("status") not in (None, "ok")
    ]
    share = verdict.ok / verdict.cases
    print(f"\n{verdict.ok} of {verdict.cases} ok ({share:.1%}, target {LEAST_OK:.0%})")
    print(f"passes where torch fails ({len(ahead)}): {', '.join(ahead) or '-'}")
    print(f"\nfailures ({len(verdict.failures)}):")
    for line in verdict.failures or ["-"]:
        print(f"  {line}")
    if verdict.alarms:
        print(f"\n!!! {len(verdict.alarms)} that must not happen:")
        for line in verdict.alarms:
            print(f"  !!! {line}")


def main() -> int:
    """Run, print, judge."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--lib", choices=("stillframe", "torch"), default="stillframe")
    p.add_argument("--cases", default="*", help="globs on names, with commas")
    p.add_argument("--jobs", type=int, default=2, help="1 for times that matter")
    p.add_argument("--timeout", type=float, help="seconds per case")
    p.add_argument("--strict", action="store_true", help="export(..., strict=True)")
    p.add_argument("--decompose", action="store_true", help="run_decompositions() as well")
    p.add_argument("--check-only", action="store_true", help="verdicts without timed exports")
    p.add_argument("--merge", action="store_true", help="redo only the chosen cases of --out")
    p.add_argument("--out", type=Path, help="keep the result file there")
    p.add_argument("--read", type=Path, help="judge an existing result file; run nothing")
    options = p.parse_args()
    folder = zoo_folder()
    if folder is None:
        print("no zoo: set STILLFRAME_ZOO to the folder with run_zoo.py", file=sys.stderr)
        return 2

    arguments = ["--cases", options.cases, "--jobs", str(options.jobs)]
    arguments += ["--timeout", str(options.timeout)] if options.timeout else []
    for flag in ("strict", "decompose", "check_only", "merge"):
        arguments += ["--" + flag.replace("_", "-")] if getattr(options, flag) else []
    with tempfile.TemporaryDirectory() as scratch:
        out = options.read or options.out or Path(scratch) / "zoo.json"
        if options.read is None:
            code = run(folder, out.resolve(), arguments, lib=options.lib)
            if code or not out.is_file():
                print(f"run_zoo.py failed with exit code {code}", file=sys.stderr)
                return 2
        result = json.loads(out.read_text())
        rows = result["cases"]
        baseline_file = folder / BASELINES[result["meta"]["strict"]]
        compare = [sys.executable, str(folder / "compare.py"), str(baseline_file), str(out)]
        print("", flush=True)
        subprocess.run(compare, check=False)
    baseline = json.loads(baseline_file.read_text())["cases"]
    ours = our_errors() if options.lib == "stillframe" else frozenset()
    verdict = judge(rows, baseline, ours)
    show(verdict, rows, baseline)
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main())
