"""A frame as graph, guards and the rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.variables.checking import agrees, guards_of, refuses

import stillframe as sf
from stillframe.variables import FrameState, capture_frame

SCALE = 3


class Config:
    def __init__(self, depth: int = 2) -> None:
        self.depth = depth
        self.names: list[Any] = ["a"]
        self.last: Any = None


def test_a_frame_reads_globals_and_objects_and_writes_them() -> None:
    def step(config: Config, x: torch.Tensor, unused: int) -> Any:
        y = x * SCALE
        for _ in range(config.depth):
            y = y + 1
        config.names.append(y.shape[0])
        config.last = y
        return {"y": y, "all": [x, y, config]}

    capture = agrees(step, lambda: (Config(), torch.arange(4.0), 7))
    found = guards_of(capture)
    assert "CONSTANT_MATCH L['config'].depth" in found
    assert "CONSTANT_MATCH G['SCALE']" in found
    assert not any("unused" in guard for guard in found)
    assert capture.failure(Config(), torch.arange(4.0), "anything") is None
    assert "depth" in refuses(capture, Config(3), torch.arange(4.0), 7)
    with pytest.raises(sf.CallError, match=r"is a torch.Tensor of sizes \(4,\)"):
        capture(Config(), torch.arange(5.0), 7)


def test_a_module_is_captured_with_its_parameters_as_inputs() -> None:
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    capture = capture_frame(layer, (torch.randn(2, 5, 16),))
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(capture(x), layer(x))
    with torch.no_grad():
        layer.linear1.weight.mul_(2)
    torch.testing.assert_close(capture(x), layer(x))
    layer.linear1.register_forward_hook(lambda *_: None)
    assert "_forward_hooks" in refuses(capture, x)


def test_a_size_that_varied_is_a_symbol_the_next_time() -> None:
    def mean(x: torch.Tensor) -> torch.Tensor:
        return x.sum(0) / x.shape[0] if x.shape[0] > 3 else x[0]

    state = FrameState()
    first = agrees(mean, lambda: (torch.randn(4, 2, generator=seeded()),), frame_state=state)
    assert "sizes (4, 2)" in refuses(first, torch.randn(6, 2))
    second = agrees(
        mean,
        lambda: (torch.randn(6, 2, generator=seeded()),),
        lambda: (torch.randn(9, 2, generator=seeded()),),
        frame_state=state,
    )
    assert "L['x'].size()[0] >= 4" in refuses(second, torch.randn(3, 2))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)
