"""``save``: whole or not at all, bad paths, what a file cannot hold, tensors of every kind."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf
from stillframe.artifact import archive, direct_file
from stillframe.artifact.direct_file import DirectFile


@pytest.fixture(scope="module")
def program() -> sf.ExportedProgram:
    return sf.export(nn.Linear(3, 2).eval(), (torch.ones(1, 3),))


# -- paths ----------------------------------------------------------------------------------------


def test_bad_paths(program: sf.ExportedProgram, tmp_path: Path) -> None:
    with pytest.raises(sf.InvalidInput, match="does not exist"):
        sf.save(program, tmp_path / "no" / "p.still")
    with pytest.raises(sf.InvalidInput, match="is a directory"):
        sf.save(program, tmp_path)
    with pytest.raises(sf.InvalidInput, match="must be a path, got int"):
        sf.save(program, 3)  # type: ignore[arg-type]
    with pytest.raises(sf.InvalidInput, match="There is no file"):
        sf.load(tmp_path / "p.still")
    with pytest.raises(sf.InvalidInput, match="is a directory"):
        sf.load(tmp_path)
    with pytest.raises(sf.InvalidInput, match="must be a path"):
        sf.load(None)  # type: ignore[arg-type]
    with pytest.raises(sf.InvalidInput, match="save takes an ExportedProgram, got Linear"):
        sf.save(nn.Linear(2, 2), tmp_path / "p.still")  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folders_that_cannot_be_written(program: sf.ExportedProgram, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(sf.InvalidInput, match="cannot be written"):
        sf.save(program, tmp_path / "p.still")


# -- whole or not at all --------------------------------------------------------------------------


def test_a_failure_leaves_what_was_there(
    program: sf.ExportedProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.still"
    path.write_text("before")

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    for name in ("write", "finish"):
        with monkeypatch.context() as patch:
            patch.setattr(DirectFile, name, full)
            with pytest.raises(OSError, match="No space left"):
                sf.save(program, path)
        assert os.listdir(tmp_path) == ["p.still"] and path.read_text() == "before"
    sf.save(program, path)
    assert os.listdir(tmp_path) == ["p.still"]
    sf.load(path)


def test_refused_programs_leave_nothing(tmp_path: Path) -> None:
    program = sf.export(lambda x: x + 1, (torch.ones(2),))
    program.constants = {"c": object()}
    with pytest.raises(sf.ArtifactError, match="The constant c is a object"):
        sf.save(program, tmp_path / "p.still")
    assert os.listdir(tmp_path) == []


def test_a_loaded_program_outlives_its_file(program: sf.ExportedProgram, tmp_path: Path) -> None:
    path = tmp_path / "p.still"
    sf.save(program, path)
    loaded = sf.load(path)
    sf.save(loaded, path)  # over the file that it is mapped from
    path.unlink()
    x = torch.ones(1, 3)
    torch.testing.assert_close(loaded.module()(x), program.module()(x))


def test_permissions_are_those_of_new_files(program: sf.ExportedProgram, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    sf.save(program, tmp_path / "p.still")
    assert (tmp_path / "p.still").stat().st_mode == (tmp_path / "plain").stat().st_mode


# -- tensors --------------------------------------------------------------------------------------


class Holds(nn.Module):
    """A module with the given buffers, used and returned."""

    def __init__(self, **buffers: torch.Tensor) -> None:
        super().__init__()
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(self, x: torch.Tensor) -> Any:
        return x + 1, dict(self.named_buffers())


def saved_buffers(m: nn.Module, folder: Path) -> Any:
    sf.save(sf.export(m, (torch.ones(1),)), folder / "p.still")
    return sf.load(folder / "p.still").state_dict


DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64, torch.complex128,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype: torch.dtype, tmp_path: Path) -> None:
    value = torch.tensor([0, 1, 1, 0, 1]).to(dtype)
    found = saved_buffers(Holds(value=value), tmp_path)["value"]
    assert found.dtype is dtype
    assert torch.equal(found, value)


def test_strides(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    values = {
        "transposed": base.view(4, 6).t(),
        "expanded": torch.arange(3.0).expand(4, 3),
        "stepped": base[::2],
        "offset": base[5:9],
        "column": torch.arange(1000.0).view(100, 10)[:, 3],
        "scalar": base[7],
        "empty": base.view(4, 6)[:, 6:],
    }
    values = {
        k: v.clone().as_strided(v.shape, v.stride()) if k == "scalar" else v
        for k, v in values.items()
    }
    found = saved_buffers(Holds(**values), tmp_path)
    for name, value in values.items():
        assert torch.equal(found[name], value), name
        if name != "column":  # covers ten times its elements: written, and loaded, contiguous
            assert found[name].stride() == value.stride(), name
    assert found["column"].is_contiguous()


def test_the_same_memory_is_written_once_and_stays_shared(tmp_path: Path) -> None:
    big = torch.randn(100_000)
    found = saved_buffers(Holds(a=big, b=big.detach(), c=big), tmp_path)
    assert found["a"] is found["c"] and found["a"] is not found["b"]
    assert found["a"].data_ptr() == found["b"].data_ptr()
    assert (tmp_path / "p.still").stat().st_size < 2 * big.nbytes


def test_written_views_of_one_memory_are_refused(tmp_path: Path) -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("whole", torch.zeros(4))
            self.register_buffer("part", torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.part.add_(1)
            return x + self.whole.sum()

    program = sf.export(M(), (torch.ones(1),))
    base = torch.zeros(4)
    program.state_dict = {"whole": base, "part": base[:2]}
    with pytest.raises(sf.ArtifactError, match="are views of one memory"):
        sf.save(program, tmp_path / "p.still")


@pytest.mark.parametrize(
    "value", [torch.ones(2, device="meta"), torch.eye(2).to_sparse()], ids=["meta", "sparse"]
)
def test_tensors_that_a_file_cannot_hold(value: torch.Tensor, tmp_path: Path) -> None:
    program = sf.export(lambda x: x + 1, (torch.ones(1),))
    program.constants = {"odd": value}
    with pytest.raises(sf.ArtifactError, match="odd (is on the meta device|has layout)"):
        sf.save(program, tmp_path / "p.still")


def test_members_longer_than_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks, blocks and pieces that end in the middle of tensors and headers."""
    monkeypatch.setattr(archive, "CHUNK", 1000)
    monkeypatch.setattr(archive, "_PIECE", 300)
    monkeypatch.setattr(direct_file, "BLOCK", 4096)
    values = {f"b{i}": torch.randn(77 * i + 1) for i in range(20)}
    found = saved_buffers(Holds(**values), tmp_path)
    for name, value in values.items():
        assert torch.equal(found[name], value)
    with zipfile.ZipFile(tmp_path / "p.still") as z:
        assert z.testzip() is None


# -- the file underneath --------------------------------------------------------------------------


@pytest.mark.parametrize("direct", [True, False])
def test_direct_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: bool) -> None:
    monkeypatch.setattr(direct_file, "BLOCK", 4096)
    if not direct:
        monkeypatch.setattr(direct_file, "_open_direct", lambda path: None)
    path = tmp_path / "f"
    path.touch()
    file = DirectFile(str(path))
    want = bytearray()
    try:
        for i in range(60):
            data = bytes([i]) * (i * 37)
            file.write(data)
            want += data
            if i % 7 == 3:  # correct something: in the file, in the buffer, and across both
                place = len(want) * (i % 5) // 5
                file.seek(place)
                file.write(b"corrected")
                want[place : place + 9] = b"corrected"
                file.seek(0, 2)
            assert file.tell() == len(want)
        with pytest.raises(ValueError, match="outside"):
            file.seek(10**9)
        file.finish()
    finally:
        file.close()
    assert path.read_bytes() == bytes(want)


def test_a_file_system_that_refuses_direct_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_file, "BLOCK", 1000)  # not a multiple of the disk's blocks: EINVAL
    path = tmp_path / "f"
    path.touch()
    file = DirectFile(str(path))
    file.write(bytes(range(256)) * 20)
    file.finish()
    file.close()
    assert path.read_bytes() == bytes(range(256)) * 20
