"""Which rows of the behaviour catalogue have no test?

    python tools/spec_rows.py [--spec ../shared/SPEC.md] [--section 1 2]

Rows of the catalogue begin a line, as ``- **2.14 Name.**`` or, in tables, as ``| 2.14 |``. A test
holds rows by ``@pytest.mark.spec("2.14", ...)`` on a function or a class, or by ``pytestmark``; the
marks are read from the source, nothing is imported. Prints a table by section and the rows
without a test. The exit code is 0, whatever is missing.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_SECTION = re.compile(r"^## (\d+)\. (.+?)\s*$")
_ROW = re.compile(r"^- \*\*(\d+\.\d+)\s+(.+?)\*\*")
_TABLE_ROW = re.compile(r"^\|\s*(\d+\.\d+)\s*\|\s*([^|]*)")


@dataclass(frozen=True)
class Row:
    """One row of the catalogue."""

    number: str
    name: str

    @property
    def section(self) -> str:
        """The number before the dot."""
        return self.number.partition(".")[0]


@dataclass
class Catalogue:
    """All rows in order, and the titles of the sections."""

    rows: dict[str, Row] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)


def read_catalogue(text: str) -> Catalogue:
    """Rows and section titles of the catalogue.

    Raises:
        ValueError: one number on two rows.
    """
    found = Catalogue()
    for line in text.splitlines():
        if match := _SECTION.match(line):
            found.titles[match.group(1)] = match.group(2)
        elif match := _ROW.match(line) or _TABLE_ROW.match(line):
            number, name = match.group(1), match.group(2).strip(" .*`")
            if number in found.rows:
                raise ValueError(f"the catalogue has two rows {number}")
            found.rows[number] = Row(number, name)
    return found


def marks(source: str) -> Iterator[str]:
    """Row numbers in all ``pytest.mark.spec(...)`` of a test file."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "spec"
            and ast.unparse(node.func.value).endswith("mark")
        ):
            for argument in node.args:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value


def marks_in(folder: Path) -> dict[str, list[str]]:
    """Row number -> test files that hold it, below ``folder``."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        for number in dict.fromkeys(marks(path.read_text(encoding="utf-8"))):
            found.setdefault(number, []).append(str(path.relative_to(folder.parent)))
    return found


def report(
    catalogue: Catalogue, held: dict[str, list[str]], sections: Iterable[str] = ()
) -> Iterator[str]:
    """The lines to print: a count for each section, rows without a test, unknown numbers."""
    wanted = set(sections) or {row.section for row in catalogue.rows.values()}
    rows = [row for row in catalogue.rows.values() if row.section in wanted]
    missing = [row for row in rows if row.number not in held]
    yield f"{'section':40} rows  held  without a test"
    for section in dict.fromkeys(row.section for row in rows):
        total = sum(row.section == section for row in rows)
        without = sum(row.section == section for row in missing)
        title = f"{section}. {catalogue.titles.get(section, '')}"
        yield f"{title[:40]:40} {total:4}  {total - without:4}  {without:4}"
    yield f"{'all':40} {len(rows):4}  {len(rows) - len(missing):4}  {len(missing):4}"
    if missing:
        yield ""
        yield "rows without a test:"
        yield from (f"  {row.number:6} {row.name}" for row in missing)
    unknown = sorted(set(held) - set(catalogue.rows))
    if unknown:
        yield ""
        yield "marks of rows that the catalogue does not have:"
        yield from (f"  {number:6} {', '.join(held[number])}" for number in unknown)


def default_catalogue() -> Path:
    """$STILLFRAME_SPEC, or the catalogue beside the repository."""
    return Path(os.environ.get("STILLFRAME_SPEC") or ROOT.parent / "shared" / "SPEC.md")


def main(arguments: list[str] | None = None) -> int:
    """Print the report; 2 when there is no catalogue to read."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--spec", type=Path, default=default_catalogue(), help="the catalogue")
    parser.add_argument("--tests", type=Path, default=ROOT / "tests", help="folder of the tests")
    parser.add_argument("--section", nargs="+", default=(), help="only these sections")
    options = parser.parse_args(arguments)
    if not options.spec.is_file():
        print(f"there is no catalogue at {options.spec}: give --spec", file=sys.stderr)
        return 2
    catalogue = read_catalogue(options.spec.read_text(encoding="utf-8"))
    for line in report(catalogue, marks_in(options.tests), options.section):
        print(line)
    return 0


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # "| head" is no error
    sys.exit(main())
