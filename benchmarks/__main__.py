"""Run every benchmark and print one table.

    python benchmarks [--check] [--quick] [--only export,memory] [--zoo] [--json all.json]

Each ``bench_*.py`` of this folder runs in a process of its own and leaves its figures as JSON; the
table has a line per ratio: what it is, the value, the target where there is one, and the verdict.
A script that fails to run is a line of the table and a missed target, not a gap in it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

#: Options that shorten a script for a first look; the figures are then rough.
QUICK: dict[str, list[str]] = {
    "export": ["--rounds", "3", "--no-static"],
    "memory": ["--repeats", "1"],
    "call": ["--rounds", "15"],
}

Line = tuple[str, str, str, str]


def scripts() -> list[str]:
    """Names of the benchmark scripts: ``bench_<name>.py``."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def run(name: str, extra: list[str], out: Path) -> tuple[int, dict[str, Any]]:
    """Run one script, its own tables passing through; exit code and its JSON (empty if none)."""
    command = [sys.executable, str(HERE / f"bench_{name}.py"), "--json", str(out), *extra]
    print(f"\n=== {name} ===", flush=True)
    code = subprocess.run(command, check=False).returncode
    if not out.is_file():
        return code, {}
    data = json.loads(out.read_text())
    return code, data if isinstance(data, dict) else {}


def lines_of(name: str, code: int, data: dict[str, Any]) -> list[Line]:
    """The table's lines for one script: its targets, then its other figures."""
    lines: list[Line] = []
    for target in data.get("targets", []):
        value = target.get("value")
        verdict = {True: "met", False: "MISSED"}.get(target.get("met"), "not measured")
        bound = f"{target['relation']} {target['bound']:.3g}"
        lines.append((target["name"], "-" if value is None else f"{value:.3g}", bound, verdict))
    for label, value in data.get("figures", {}).items():
        lines.append((label, f"{value:.3g}", "", ""))
    if code:
        lines.append((f"bench_{name}.py", f"exit {code}", "0", "MISSED"))
    elif not lines:
        lines.append((f"bench_{name}.py (figures above)", "-", "", ""))
    return lines


def show(lines: list[Line]) -> None:
    """Print the table of everything."""
    header: Line = ("ratio", "value", "target", "")
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(4)]
    print("\n=== all ===")
    for line in [header, *lines]:
        cells = [line[0].ljust(widths[0]), line[1].rjust(widths[1]), line[2].rjust(widths[2])]
        print("  ".join([*cells, line[3]]).rstrip())


def main() -> int:
    """Run, print, judge."""
    p = argparse.ArgumentParser(
        prog="python benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--only", default="", help=f"of {', '.join(scripts())}; with commas")
    p.add_argument("--quick", action="store_true", help="fewer samples: rough figures, soon")
    p.add_argument("--zoo", action="store_true", help="the zoo as well (minutes)")
    p.add_argument("--json", metavar="FILE", type=Path, help="write everything there")
    p.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    options = p.parse_args()
    names = [name for name in options.only.split(",") if name] or scripts()
    unknown = sorted(set(names) - set(scripts()))
    if unknown:
        p.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(scripts())}")

    everything: dict[str, Any] = {}
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            extra = QUICK.get(name, []) if options.quick else []
            code, data = run(name, extra, Path(scratch) / f"{name}.json")
            everything[name] = data
            lines += lines_of(name, code, data)
    if options.zoo:
        print("\n=== zoo ===", flush=True)
        code = subprocess.run([sys.executable, str(HERE / "zoo.py")], check=False).returncode
        verdict = {0: "met", 1: "MISSED"}.get(code, "not measured")
        lines.append(("zoo: 90% ok, none wrong, every failure ours", "", "", verdict))
    show(lines)
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1) + "\n")
    bad = [line for line in lines if line[3] in ("MISSED", "not measured")]
    return 1 if options.check and bad else 0


if __name__ == "__main__":
    sys.exit(main())
