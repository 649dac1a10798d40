"""Fourier transforms against the real kernels."""

from __future__ import annotations

import pytest
import torch
from tests.fake.checking import check, check_error, layouts_of
from tests.fake.symbols import Symbols

aten = torch.ops.aten
LAYOUTS = [name for name in layouts_of((2, 3, 4, 6)) if "expanded" not in name]


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_transforms_of_every_layout(layout: str, dtype: torch.dtype) -> None:
    x = layouts_of((2, 3, 4, 6))[layout].to(dtype)
    real = not dtype.is_complex
    for args in ((), (None, 1), (5, 2), (3, 2), (4, 1)):
        for op in (aten.fft_fft, aten.fft_ifft, aten.fft_irfft, aten.fft_hfft):
            check(op.default, x, *args)
        if real:
            check(aten.fft_rfft.default, x, *args)
            check(aten.fft_ihfft.default, x, *args)
    several = [aten.fft_fft2, aten.fft_fftn, aten.fft_ifftn, aten.fft_irfft2, aten.fft_irfftn]
    for op in (*several, *((aten.fft_rfft2, aten.fft_rfftn) if real else ())):
        check(op.default, x)
        check(op.default, x, None, [1, 2])
        check(op.default, x, [3, 5], [1, 3])
    check(aten.fft_fftshift.default, x)
    check(aten.fft_ifftshift.default, x, [1])


@pytest.mark.parametrize("onesided", [True, False])
@pytest.mark.parametrize("return_complex", [True, False])
def test_frames(onesided: bool, return_complex: bool) -> None:
    signal, window = torch.randn(2, 100), torch.hann_window(16)
    rest = (False, onesided, return_complex)
    check(aten.stft.default, signal, 16, 4, 16, window, *rest)
    check(aten.stft.default, signal[0], 16, None, None, window, *rest)
    check(aten.stft.center, signal, 16, 4, 16, window, True, "reflect", *rest)


def test_signals_from_frames() -> None:
    signal, window = torch.randn(2, 100), torch.hann_window(16)
    frames = torch.stft(signal, 16, 4, 16, window, return_complex=True)
    check(aten.istft.default, frames, 16, 4, 16, window)
    check(aten.istft.default, frames[0], 16, 4, 16, window)
    check(aten.istft.default, frames, 16, 4, 16, window, True, False, None, 90)


def test_frequencies() -> None:
    check(aten.fft_fftfreq.default, 6)
    check(aten.fft_rfftfreq.default, 6, 0.5)


def test_refused_as_eager_does() -> None:
    check_error(aten.fft_rfft.default, torch.randn(4, dtype=torch.complex64))
    check_error(aten.fft_fft.default, torch.randn(4), 0)
    check_error(aten.fft_fftn.default, torch.randn(4, 4), [2], [0, 1])


def test_symbolic_lengths() -> None:
    s = Symbols()
    b, n = s.size(2), s.size(100)
    x = s.fake(b, n)
    assert s.sizes(aten.fft_rfft.default, x) == "[s0, s1//2 + 1]"
    assert s.sizes(aten.fft_fft.default, x) == "[s0, s1]"
    window, flags = s.fake(16), (False, True, True)
    assert s.sizes(aten.stft.default, s.fake(b, n * 4), 16, 4, 16, window, *flags) == (
        "[s0, 9, s1 - 3]"
    )
    assert s.guards() == []
