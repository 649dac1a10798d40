"""A sample of the zoo captured as frames with guards: equal to eager wherever the guards hold.

All of it: ``python benchmarks/capture_frames.py``.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks import capture_frames  # noqa: E402

#: Small cases of the families, with the library that they need.
SAMPLE = {
    "nn_gru_with_state": "torch",
    "nn_multihead_cross_attention": "torch",
    "nn_conv3d_classifier": "torch",
    "pyg_sage": "torch_geometric",
    "timm_vit_tiny_patch16_224": "timm",
    "tv_squeezenet1_1": "torchvision",
}


@pytest.mark.parametrize("way", capture_frames.WAYS)
@pytest.mark.parametrize("name", SAMPLE)
def test_a_model_is_captured_and_equal(name: str, way: str) -> None:
    if importlib.util.find_spec(SAMPLE[name]) is None:
        pytest.skip(f"{SAMPLE[name]} is not installed")
    cases = capture_frames.zoo_cases(name)
    if cases is None:
        pytest.skip("the zoo is not here")
    module, calls = capture_frames.calls_of(cases[name])
    with torch.no_grad():
        verdict = capture_frames.judge(module, calls, way)
    assert verdict.word == "ok", verdict.why
    assert verdict.admitted == (3 if way == "varying" else 1)


def test_verdicts_tell_refusals_from_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    call: Any = ((torch.ones(2),), {})
    refused = capture_frames.judge(torch.nn.LazyLinear(3), [call], "static")
    assert refused.word == "refused" and "FrameError" in refused.line()
    layer = torch.nn.Linear(2, 2)
    good = capture_frames.judge(layer, [call], "static")
    assert good.word == "ok" and good.line().startswith("ok")

    def shifted(module: Any, calls: Any) -> Any:
        capture = capture_frames.capture_static(module, calls)
        capture._run = lambda found, globals_: module(*calls[0][0]) + 1
        return capture

    monkeypatch.setitem(capture_frames.WAYS, "static", shifted)
    wrong = capture_frames.judge(layer, [call], "static")
    assert wrong.word == "wrong" and "not close" in wrong.why
