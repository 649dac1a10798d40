"""The example in the README does what it says."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

import stillframe as sf


def test_the_example_runs(repository: Path, tmp_path: Path, capsys: Any) -> None:
    text = (repository / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    *lines, last = block.rstrip().splitlines()
    statement, _, promised = last.partition("  # CallError: ")
    assert promised
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        names: dict[str, Any] = {}
        exec("\n".join(lines), names)
        with pytest.raises(sf.CallError) as caught:
            exec(statement, names)
    finally:
        os.chdir(here)
    assert promised in str(caught.value)
    shown = capsys.readouterr().out
    assert "f32[batch, 16] = aten.linear.default(" in shown
    assert "4 samples agree" in shown
