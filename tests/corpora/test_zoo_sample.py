"""A fixed, fast sample of the zoo: real architectures captured with dynamic shapes, equal to eager.

The zoo's own ``run_zoo.py`` does the work, once for all selected cases: it exports each in a
process of its own and compares the program with the module on the example and on two inputs of
other sizes. Here each case is a test. The full zoo is ``python benchmarks/zoo.py``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ZOO = Path(os.environ.get("STILLFRAME_ZOO") or ROOT.parent / "shared" / "zoo")
LIBRARIES = ("transformers", "timm", "torchvision", "torch_geometric")

#: Every family, and in each the constructs that differ; chosen for speed.
SAMPLE = (
    # torch.nn: recurrent kernels, attention with extra keys, 1-d and 3-d convolutions
    "nn_gru_with_state",  # torch.export fails: it specialises the sequence length
    "nn_multihead_cross_attention",  # torch.export fails: the same, of the source sequence
    "nn_lstm_projected_fixed_length",
    "nn_wavenet_conv1d",
    "nn_conv3d_classifier",
    # graphs: gather, scatter, self-loops; numbers of nodes and edges both dynamic
    "pyg_sage",
    "pyg_gat",
    "pyg_gin_basic_model",
    # timm: patches, windows, weight standardisation
    "timm_vit_tiny_patch16_224",
    "timm_convmixer_768_32",
    "timm_beit_base_patch16_224",
    "timm_swin_tiny_patch4_window7_224",
    "timm_nf_regnet_b0",  # torch.export fails: it specialises height and width
    # torchvision: dynamic height and width
    "tv_resnet18",
    "tv_alexnet",
    "tv_squeezenet1_1",
    "tv_vit_custom",
    # transformers: masks, caches in and out, Fourier mixing, vision, series
    "hf_bert",
    "hf_gpt2_past",
    "hf_llama_past",  # torch.export fails: it specialises the length of the past
    "hf_llama_returns_cache",
    "hf_fnet",
    "hf_vit",
    "hf_patchtst_series",
)

#: Cases that cannot pass yet, each with the reason. This list only shrinks: an entry that passes
#: fails the test.
EXPECTED_FAILURES: dict[str, str] = {}

_missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.skipif(
        not (ZOO / "run_zoo.py").is_file(),
        reason=f"the zoo is not at {ZOO}: set STILLFRAME_ZOO to the folder with run_zoo.py",
    ),
    pytest.mark.skipif(
        bool(_missing), reason=f"the zoo needs model libraries: {', '.join(_missing)} missing"
    ),
]


@pytest.fixture(scope="module")
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Result rows by case name, of the cases that this session selected."""
    selected = [
        item.callspec.params["case"]
        for item in request.session.items
        if item.path == request.path and "case" in getattr(item, "callspec", _NoParams).params
    ]
    out = tmp_path_factory.mktemp("zoo") / "result.json"
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, str(ZOO / "run_zoo.py"), "--lib", "stillframe", "--check-only"]
    command += ["--jobs", "2", "--cases", ",".join(dict.fromkeys(selected)), "--out", str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode or not out.is_file():
        pytest.fail(f"run_zoo.py did not run:\n{(done.stdout + done.stderr)[-3000:]}")
    rows: dict[str, dict[str, Any]] = json.loads(out.read_text())["cases"]
    return rows


class _NoParams:
    """Stands in for the ``callspec`` of a test without parameters."""

    params: dict[str, Any] = {}


@pytest.mark.parametrize("case", SAMPLE)
def test_exports_and_agrees_with_eager(case: str, results: dict[str, dict[str, Any]]) -> None:
    """The case exports, equals eager at all three sizes, and its module is as it was before."""
    assert case in results, f"the zoo has no case {case!r} any more"
    row = results[case]
    if case in EXPECTED_FAILURES:
        assert row["status"] != "ok", f"{case} passes now: take it off EXPECTED_FAILURES"
        assert row["status"] != "wrong", f"{case} gives a wrong answer: {row.get('message')}"
        pytest.xfail(EXPECTED_FAILURES[case])
    ended = f"{row['status']} in stage {row['stage']!r}: {row.get('message')}"
    assert row["status"] == "ok", f"{ended}\n{row.get('traceback', '')}"
    assert row["module_intact"], "the module gives another output after the capture"


def test_expected_failures_are_in_the_sample() -> None:
    """An entry of the list names a real case."""
    assert set(EXPECTED_FAILURES) <= set(SAMPLE)
