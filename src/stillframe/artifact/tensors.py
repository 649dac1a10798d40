"""Tensors to bytes in a safetensors member, and back by mapping.

Each piece of memory is written once, straight from where it is, at an offset aligned for mapping.
Names that share one tensor stay tied. A tensor that is not contiguous is written as the stretch of
memory that it covers and keeps its strides; one that covers far more memory than it has elements
(a column of a large matrix) is written as its contiguous value, and is contiguous when loaded.
"""

from __future__ import annotations

import ctypes
import itertools
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import torch

from stillframe.artifact.archive import ALIGNMENT, ArchiveReader, ArchiveWriter
from stillframe.artifact.schema import SafetensorsEntry, StoredTensor, TensorObject
from stillframe.errors import ArtifactError
from stillframe.export.containers import dtype_of

_SAFETENSORS = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL", torch.uint16: "U16", torch.uint32: "U32",
    torch.uint64: "U64", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
_MAX_SPREAD = 2  # a stretch of memory of up to this many times the elements is kept as it is
_PADDING = "__padding__"


# -- writing --------------------------------------------------------------------------------------


class TensorTable:
    """Collects the tensors of a program, or of several, for writing.

    Attributes:
        stored: the pieces of memory.
        objects: the tensors; the position of one is its number in the file.
    """

    def __init__(self) -> None:
        self.stored: list[StoredTensor] = []
        self.objects: list[TensorObject] = []
        self._flat: dict[str, dict[str, torch.Tensor]] = {}
        self._seen: dict[int, int] = {}
        self._memory: dict[Any, int] = {}
        self._kept: list[torch.Tensor] = []

    def add(self, member: str, name: str, tensor: torch.Tensor) -> int:
        """The number of ``tensor``; the bytes go to ``member`` under ``name`` if they are new.

        Raises:
            ArtifactError: a kind of tensor that a file cannot hold, by name.
        """
        known = self._seen.get(id(tensor))
        if known is None:
            stored = self._store(member, name, _plain(name, tensor))
            is_parameter = isinstance(tensor, torch.nn.Parameter)
            known = self._seen[id(tensor)] = len(self.objects)
            self.objects.append(TensorObject(stored, tensor.requires_grad, is_parameter))
            self._kept.append(tensor)
        return known

    def _store(self, member: str, name: str, tensor: torch.Tensor) -> int:
        strides = tensor.stride()
        key = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, strides)
        if tensor.numel() and key in self._memory:
            return self._memory[key]
        place = self._memory[key] = len(self.stored)
        dtype = str(tensor.dtype).removeprefix("torch.")
        sizes, device = list(tensor.shape), str(tensor.device)
        if tensor.numel() == 0:
            self.stored.append(StoredTensor(member, "", dtype, sizes, list(strides), device))
            return place
        flat = tensor
        if not tensor.is_contiguous():
            span = span_of(sizes, strides)
            if span <= _MAX_SPREAD * tensor.numel():
                flat = tensor.as_strided((span,), (1,))
            else:
                flat = tensor.contiguous()
                strides = flat.stride()
        key_in_file = self._new_key(member, name)
        self._flat[member][key_in_file] = flat
        self.stored.append(StoredTensor(member, key_in_file, dtype, sizes, list(strides), device))
        self._kept.append(tensor)
        return place

    def _new_key(self, member: str, name: str) -> str:
        """``name``, or a name like it if the member has another tensor of that name."""
        taken = self._flat.setdefault(member, {})
        keys = (f"{name}{f'.{i}' if i else ''}" for i in itertools.count())
        return next(key for key in keys if key not in taken)

    def write(self, archive: ArchiveWriter, member: str) -> None:
        """Write all bytes that belong to ``member``."""
        tensors = self._flat.get(member, {})
        header, layout, size = _layout(tensors)
        pieces = _pieces(header, tensors, layout)
        archive.add(member, pieces, len(header) + size, header_size=len(header))


def _plain(name: str, tensor: torch.Tensor) -> torch.Tensor:
    kind = None
    if tensor.layout is not torch.strided:
        kind = f"has layout {tensor.layout}"
    elif tensor.is_quantized:
        kind = "is quantised"
    elif tensor.is_meta:
        kind = "is on the meta device, without data"
    elif type(tensor) not in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer):
        kind = f"is a {type(tensor).__module__}.{type(tensor).__qualname__}"
    if kind is not None:
        raise ArtifactError(f"{name} {kind}; a file holds plain strided tensors.")
    return tensor.detach().resolve_conj().resolve_neg()


def span_of(sizes: Any, strides: Any) -> int:
    """How many elements lie between the first and the last one, both included."""
    if 0 in sizes:
        return 0
    return 1 + sum(int(size - 1) * int(stride) for size, stride in zip(sizes, strides, strict=True))


def _layout(tensors: dict[str, torch.Tensor]) -> tuple[bytes, dict[str, tuple[int, int]], int]:
    """The safetensors header, each tensor's offsets, and the size of the data.

    The format allows no holes, so what aligns the next tensor is an entry of its own.
    """
    entries: dict[str, Any] = {}
    layout: dict[str, tuple[int, int]] = {}
    at = 0
    for name, tensor in tensors.items():
        gap = -at % ALIGNMENT
        if gap:
            entries[f"{_PADDING}{len(entries)}"] = _entry("U8", [gap], at, at + gap)
            at += gap
        end = at + tensor.numel() * tensor.element_size()
        dtype = _SAFETENSORS.get(tensor.dtype)
        shape = list(tensor.shape) if dtype else [end - at]
        entries[name] = _entry(dtype or "U8", shape, at, end)
        layout[name] = (at, end)
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text, layout, at


def _entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def _pieces(
    header: bytes, tensors: dict[str, torch.Tensor], layout: dict[str, tuple[int, int]]
) -> Iterator[Any]:
    yield header
    at = 0
    for name, tensor in tensors.items():
        begin, end = layout[name]
        if begin > at:
            yield bytes(begin - at)
        memory = tensor.cpu()
        view = (ctypes.c_ubyte * (end - begin)).from_address(memory.data_ptr())
        setattr(view, "_tensor", memory)  # the view does not keep the memory alive by itself
        yield view
        at = end


# -- reading --------------------------------------------------------------------------------------


class TensorReader:
    """Makes the tensors of a file over its mapped memory."""

    def __init__(self, archive: ArchiveReader, stored: list[StoredTensor]) -> None:
        self._archive = archive
        self._stored = stored
        self._headers: dict[str, tuple[int, dict[str, SafetensorsEntry]]] = {}

    def make(self, item: TensorObject) -> torch.Tensor:
        """The tensor; its memory is the file's, copied by the system where it is written.

        Raises:
            ArtifactError: the description does not fit the bytes.
        """
        if not 0 <= item.stored < len(self._stored):
            raise self._damaged(f"there is no tensor {item.stored}")
        stored = self._stored[item.stored]
        tensor = self._map(stored)
        if stored.device != "cpu":
            tensor = self._moved(tensor, stored.device)
        if item.is_parameter:
            return torch.nn.Parameter(tensor, requires_grad=item.requires_grad)
        return tensor.requires_grad_(item.requires_grad)

    def _map(self, stored: StoredTensor) -> torch.Tensor:
        try:
            dtype = dtype_of(stored.dtype)
        except ValueError as e:
            raise self._damaged(str(e)) from None
        sizes, strides = stored.sizes, stored.strides
        if len(sizes) != len(strides) or any(v < 0 for v in (*sizes, *strides)):
            raise self._damaged(f"{stored.key} has sizes {sizes} and strides {strides}")
        if 0 in sizes:
            return torch.empty_strided(sizes, strides, dtype=dtype)
        begin, end = self._place(stored)
        if span_of(sizes, strides) * dtype.itemsize != end - begin:
            raise self._damaged(f"{stored.key} has {end - begin} bytes, which do not fit its sizes")
        memory = torch.frombuffer(
            self._archive.memory, dtype=torch.uint8, offset=begin, count=end - begin
        )
        return torch.empty(0, dtype=dtype).set_(memory.untyped_storage(), 0, sizes, strides)

    def _place(self, stored: StoredTensor) -> tuple[int, int]:
        data, entries = self._header(stored.member)
        entry = entries.get(stored.key)
        if entry is None:
            raise self._damaged(f"{stored.key} is not in {stored.member}")
        begin, end = (data + offset for offset in entry.data_offsets)
        if not data <= begin < end <= self._archive.place(stored.member)[1]:
            raise self._damaged(f"{stored.key} lies outside of {stored.member}")
        return begin, end

    def _header(self, member: str) -> tuple[int, dict[str, SafetensorsEntry]]:
        known = self._headers.get(member)
        if known is None:
            try:
                begin, _ = self._archive.place(member)
                text = self._archive.read_header(member)
                entries = msgspec.json.decode(text[8:], type=dict[str, SafetensorsEntry])
            except (KeyError, msgspec.DecodeError, UnicodeDecodeError) as e:
                raise self._damaged(f"the header of {member} cannot be read ({e})") from None
            known = self._headers[member] = (begin + len(text), entries)
        return known

    def _moved(self, tensor: torch.Tensor, device: str) -> torch.Tensor:
        try:
            return tensor.to(device)
        except (RuntimeError, AssertionError) as e:
            raise ArtifactError(
                f"{self._archive.path} holds tensors on {device}, which is not available here.",
                why=str(e).splitlines()[0],
            ) from None

    def _damaged(self, why: str) -> ArtifactError:
        return ArtifactError(f"{self._archive.path} is damaged.", why=why)
