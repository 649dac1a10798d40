"""Tensors from and to files."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from stillframe.cli.tensors import output_tensors, read_tensors, write_tensors
from stillframe.errors import InvalidInput


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors({"x": torch.arange(6).reshape(2, 3)}, path)
    assert torch.equal(read_tensors(path)["x"], torch.arange(6).reshape(2, 3))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="There is no file"):
        read_tensors(tmp_path / "none.safetensors")
    (tmp_path / "foreign").write_bytes(b"something else entirely")
    with pytest.raises(InvalidInput, match="foreign is not a safetensors file"):
        read_tensors(tmp_path / "foreign")
    with pytest.raises(InvalidInput, match="Cannot write"):
        write_tensors({}, tmp_path / "no" / "folder")


def test_names_of_outputs(tmp_path: Path) -> None:
    x = torch.zeros(2, 3)
    assert list(output_tensors(x)) == ["output"]
    assert list(output_tensors((x, [x, 3], None))) == ["output[0]", "output[1][0]"]
    assert list(output_tensors({"last": x, "all": (x, x)})) == ["last", "all[0]", "all[1]"]


def test_outputs_that_share_memory_or_are_strided(tmp_path: Path) -> None:
    x = torch.arange(6.0).reshape(2, 3)
    path = tmp_path / "out.safetensors"
    write_tensors(output_tensors((x, x.t(), x[:, :1], x.expand(4, 2, 3))), path)
    found = safetensors.torch.load_file(path)
    assert torch.equal(found["output[1]"], x.t()) and found["output[3]"].shape == (4, 2, 3)
