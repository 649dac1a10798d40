"""Transformer encoders without gradients, where eager takes a path that captures cannot take."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf

KEPT = {"first tokens": (3, 5), "all": (5, 5), "a row without tokens": (0, 4)}


def encoder(**more: Any) -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, **more).eval()
    for parameter in encoder.parameters():
        nn.init.uniform_(parameter)
    return encoder


def padding(kept: tuple[int, ...], length: int = 5) -> torch.Tensor:
    return torch.arange(length) >= torch.tensor(kept).unsqueeze(1)


def programs(mod: nn.Module, x: torch.Tensor, mask: torch.Tensor) -> dict[str, Callable[..., Any]]:
    """The module by all kinds of capture, as functions of input and mask."""
    state = {**dict(mod.named_parameters()), **dict(mod.named_buffers())}

    def f(state: Any, x: Any, mask: Any) -> Any:
        return torch.func.functional_call(mod, state, (x,), {"src_key_padding_mask": mask})

    found: dict[str, Callable[..., Any]] = {}
    for mode in ("real", "fake", "symbolic"):
        graph = sf.make_fx(f, tracing_mode=mode)(state, x, mask)
        found[mode] = lambda x, mask, graph=graph: graph(state, x, mask)
    for shapes in (None, sf.auto):
        program = sf.export(mod, (x,), {"src_key_padding_mask": mask}, dynamic_shapes=shapes)
        run = program.module()
        found[f"export {shapes}"] = lambda x, mask, run=run: run(x, src_key_padding_mask=mask)
    return found


@pytest.mark.parametrize("traced_with", KEPT)
@pytest.mark.parametrize("norm", (False, True))
def test_padded_positions(traced_with: str, norm: bool) -> None:
    """Whatever the mask of the example was, all masks give what eager gives."""
    mod = encoder(norm=nn.LayerNorm(8) if norm else None)
    x = torch.randn(2, 5, 8)
    not_the_first = padding((2, 3)).flip(1)
    with torch.no_grad():
        captured = programs(mod, x, padding(KEPT[traced_with]))
        for kept in (*map(padding, KEPT.values()), not_the_first):
            want = mod(x, src_key_padding_mask=kept)
            for name, run in captured.items():
                torch.testing.assert_close(run(x, kept), want, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("check", (True, False))
@pytest.mark.parametrize("gradients", (True, False))
@pytest.mark.parametrize("floats", (True, False))
def test_programs_ask_whether_gradients_are_enabled(
    check: bool, gradients: bool, floats: bool, tmp_path: Path
) -> None:
    mod, x = encoder(mask_check=check), torch.randn(2, 5, 8)
    masks = [padding((3, 4)), padding((3, 4)).flip(1)]
    if floats:
        masks = [torch.zeros(2, 5).masked_fill(mask, -torch.inf) for mask in masks]
    with torch.set_grad_enabled(gradients):
        program = sf.export(mod, (x,), {"src_key_padding_mask": masks[0]})
    sf.save(program, tmp_path / "encoder.still")
    for run in (program.module(), sf.load(tmp_path / "encoder.still").module()):
        for enabled, mask in itertools.product((True, False), masks):
            with torch.set_grad_enabled(enabled):
                want = mod(x, src_key_padding_mask=mask)
                torch.testing.assert_close(run(x, src_key_padding_mask=mask), want)


@pytest.mark.filterwarnings("ignore:Support for mismatched")
def test_masks_of_floats() -> None:
    """The layers' kernel takes all numbers but zero for minus infinity; programs refuse them."""
    mod, x = encoder(), torch.randn(2, 5, 8)
    weak = padding((2, 4)).float() * -0.5  # dropped tokens are not attended to, weakly or not
    usual = torch.zeros(2, 5).masked_fill(padding((3, 2)).flip(1), -torch.inf)
    scattered = torch.tensor([[0, -1.0, 0, -2, 0]] * 2)
    with torch.no_grad():
        captured = programs(mod, x, weak)
        for name, run in captured.items():
            for mask in (weak, usual):
                want = mod(x, src_key_padding_mask=mask)
                torch.testing.assert_close(run(x, mask), want, msg=lambda m, n=name: f"{n}: {m}")
            with pytest.raises(RuntimeError, match="other numbers than 0 and -inf"):
                run(x, scattered)


@pytest.mark.parametrize("whole", (False, True), ids=("layer", "encoder"))
@pytest.mark.parametrize("gradients", (False, True))
def test_biases_in_masks(whole: bool, gradients: bool) -> None:
    mod = encoder() if whole else encoder().layers[0]
    x, bias = torch.randn(2, 5, 8), torch.randn(5, 5)
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    with torch.set_grad_enabled(gradients):
        run = sf.export(mod, (x, bias)).module()
    torch.testing.assert_close(run(x, bias), mod(x, bias))  # with gradients: no such kernel
    with torch.no_grad():
        torch.testing.assert_close(run(x, causal), mod(x, causal))
        with pytest.raises(RuntimeError, match="mask holds other numbers"):
            run(x, bias)
    checks = [n for n in sf.export(mod.train(), (x, causal)).graph.nodes if "assert" in n.name]
    assert not checks


def test_unchecked_masks_count() -> None:
    mod, x = encoder(mask_check=False), torch.randn(2, 5, 8)
    with torch.no_grad():
        captured = programs(mod, x, padding((2, 5)))
        for mask in (padding((2, 5)), padding((2, 5)).flip(1)):
            want = mod(x, src_key_padding_mask=mask)
            for name, run in captured.items():
                torch.testing.assert_close(run(x, mask), want, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    "usual", ("gradients", "training", "enable_nested_tensor", "norm_first", "switched off")
)
def test_where_eager_takes_the_usual_path(usual: str) -> None:
    mod, x, mask = encoder(), torch.randn(2, 5, 8), padding((3, 4))
    if usual == "enable_nested_tensor":
        mod = encoder(enable_nested_tensor=False)
    elif usual == "norm_first":
        layer = nn.TransformerEncoderLayer(8, 2, 16, norm_first=True, batch_first=True)
        mod = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    elif usual == "training":
        mod.train()
    torch.backends.mha.set_fastpath_enabled(usual != "switched off")
    try:
        with torch.set_grad_enabled(usual == "gradients"):
            run = sf.export(mod, (x,), {"src_key_padding_mask": mask}).module()
            torch.manual_seed(1)
            got = run(x, src_key_padding_mask=mask)
            torch.manual_seed(1)
            want = mod(x, src_key_padding_mask=mask)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    torch.testing.assert_close(got, want)
    assert want[mask].abs().min() > 0


def test_hooks_see_what_they_see_in_eager() -> None:
    mod, x, mask = encoder(norm=nn.LayerNorm(8)), torch.randn(2, 5, 8), padding((3, 4))
    mod.register_forward_hook(lambda module, args, output: output * 2)
    norm = mod.norm
    with torch.no_grad():
        run = sf.export(mod, (x,), {"src_key_padding_mask": mask}).module()
        torch.testing.assert_close(
            run(x, src_key_padding_mask=mask), mod(x, src_key_padding_mask=mask)
        )
    assert mod.norm is norm and list(mod._modules) == ["layers", "norm"]


@pytest.mark.parametrize("gradients", (True, False))
def test_masks_that_may_be_causal(gradients: bool) -> None:
    mod, x = encoder(), torch.randn(2, 5, 8)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    lowest = torch.finfo(torch.float32).min
    other = torch.zeros(5, 5).masked_fill(torch.eye(5) == 1, lowest)
    with torch.set_grad_enabled(gradients):
        run = sf.export(mod, (x, mask)).module()
        for given in (mask, other):
            torch.testing.assert_close(run(x, given), mod(x, given))


def test_nothing_is_replaced_outside() -> None:
    forward = nn.TransformerEncoder.forward
    mod, x, mask = encoder(), torch.randn(2, 5, 8), padding((3, 4))
    sf.export(mod, (x,), {"src_key_padding_mask": mask})
    assert nn.TransformerEncoder.forward is forward
