"""The command that lists rows of the catalogue without a test."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

CATALOGUE = """
## 1. Utilities

- **1.1 Key path.** A row.
- **1.2 Names** *(implied)*. Another; see 1.1.

## 2. Entry points

| Row | Kind |
|---|---|
| 2.1 | TYPE_MATCH | a row in a table |
| 2.2 | `EQUALS` | another |
"""

TEST = """
import pytest
pytestmark = pytest.mark.spec("2.2")

@pytest.mark.spec("1.1", "9.9")
class TestThing:
    @pytest.mark.skipif(True, reason="1.2")
    def test_it(self): ...
"""


@pytest.fixture(scope="module")
def tool(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("spec_rows", repository / "tools/spec_rows.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["spec_rows"] = module
    spec.loader.exec_module(module)
    return module


def test_rows_in_lists_and_tables(tool: ModuleType) -> None:
    catalogue = tool.read_catalogue(CATALOGUE)
    assert {n: row.name for n, row in catalogue.rows.items()} == {
        "1.1": "Key path",
        "1.2": "Names",
        "2.1": "TYPE_MATCH",
        "2.2": "EQUALS",
    }
    assert catalogue.titles == {"1": "Utilities", "2": "Entry points"}


def test_two_rows_of_one_number(tool: ModuleType) -> None:
    with pytest.raises(ValueError, match="two rows 1.1"):
        tool.read_catalogue(CATALOGUE + "- **1.1 Again.** x")


def test_marks_are_read_from_the_source(tool: ModuleType) -> None:
    assert list(tool.marks(TEST)) == ["2.2", "1.1", "9.9"]


def test_report(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_thing.py").write_text(TEST)
    (tmp_path / "SPEC.md").write_text(CATALOGUE)
    where = ["--spec", str(tmp_path / "SPEC.md"), "--tests", str(tmp_path / "tests")]
    assert tool.main(where) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "section rows held without a test",
        "1. Utilities 2 1 1",
        "2. Entry points 2 1 1",
        "all 4 2 2",
        "",
        "rows without a test:",
        "1.2 Names",
        "2.1 TYPE_MATCH",
        "",
        "marks of rows that the catalogue does not have:",
        "9.9 tests/test_thing.py",
    ]
    assert tool.main([*where, "--section", "2"]) == 0
    assert "1.2" not in capsys.readouterr().out


def test_no_catalogue(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["--spec", str(tmp_path / "none.md")]) == 2
    assert "there is no catalogue at" in capsys.readouterr().err


def test_every_mark_of_this_repository_is_a_row(tool: ModuleType, repository: Path) -> None:
    if not tool.default_catalogue().is_file():
        pytest.skip(f"the catalogue is not at {tool.default_catalogue()}: set STILLFRAME_SPEC")
    catalogue = tool.read_catalogue(tool.default_catalogue().read_text())
    unknown = set(tool.marks_in(repository / "tests")) - set(catalogue.rows) - {"9.9"}
    assert not unknown, f"marks of rows that the catalogue does not have: {unknown}"
