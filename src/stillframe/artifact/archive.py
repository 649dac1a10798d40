"""The zip container: members stored as they are, aligned, with a digest for each chunk.

A member's bytes can be mapped into memory where they lie. Its integrity is told by the manifest
(SHA-256 of every chunk of 8 MiB), so that a large file can be opened at once and checked when its
tensors are first used.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from stillframe.artifact import schema
from stillframe.artifact.direct_file import DirectFile
from stillframe.artifact.schema import MemberDoc
from stillframe.errors import ArtifactError

ALIGNMENT = 64
CHUNK = 8 << 20
_PIECE = 128 << 10  # summed and copied while it is in the processor's cache
_READERS = min(4, os.cpu_count() or 1)
_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
_ZIP64_EXTRA = 20
_PADDING_ID = 0xD935  # the extra field that other tools use for alignment
_DATE = (1980, 1, 1, 0, 0, 0)
_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, NotImplementedError, ValueError,
    EOFError, OSError, OverflowError, MemoryError, LookupError, UnicodeError, TypeError,
)  # fmt: skip


# -- writing --------------------------------------------------------------------------------------


class ArchiveWriter:
    """Writes members one after the other, then the manifest.

    Args:
        file: a new file.
    """

    def __init__(self, file: DirectFile) -> None:
        self._file = file
        self._zip = zipfile.ZipFile(cast(BinaryIO, file), "w", zipfile.ZIP_STORED, allowZip64=True)
        self._members: list[MemberDoc] = []
        self._hasher = ThreadPoolExecutor(1)

    def add(self, name: str, pieces: Iterable[Any], size: int, header_size: int = 0) -> None:
        """Write a member from buffers; the digests are worked out beside the writing.

        Args:
            pieces: buffers of bytes; they are not copied.
            size: their total length.
            header_size: how many bytes at the start have a digest of their own.
        """
        digests = _Digests(header_size)
        info = zipfile.ZipInfo(name, _DATE)
        info.file_size = size
        start = self._file.tell() + _LOCAL_HEADER.size + len(name.encode()) + _ZIP64_EXTRA
        padding = -(start + 4) % ALIGNMENT
        info.extra = struct.pack("<HH", _PADDING_ID, padding) + bytes(padding)
        pending: list[Future[None]] = []
        with self._zip.open(info, "w", force_zip64=True) as member:
            for piece in pieces:
                view = memoryview(piece).cast("B")
                for begin in range(0, len(view), CHUNK):
                    part = view[begin : begin + CHUNK]
                    pending.append(self._hasher.submit(digests.update, part))
                    for at in range(0, len(part), _PIECE):
                        member.write(part[at : at + _PIECE])
                    if len(pending) > 1:  # buffers that were made for writing are let go in time
                        pending.pop(0).result()
        for future in pending:
            future.result()
        found = digests.finish()
        if digests.size != size:
            raise AssertionError(f"{name}: {digests.size} bytes written, {size} announced")
        self._members.append(MemberDoc(name, size, found, header_size, digests.header_digest))

    def finish(self) -> None:
        """Write the manifest and the directory."""
        manifest = schema.ManifestDoc(
            schema.FORMAT, schema.MAJOR, schema.MINOR, CHUNK, self._members
        )
        self._zip.writestr(zipfile.ZipInfo(schema.MANIFEST, _DATE), schema.encode(manifest))
        self._zip.close()

    def close(self) -> None:
        """Stop the worker; after an error, also keep the zip from writing an end when it dies."""
        self._hasher.shutdown()
        self._zip.fp = None


class _Digests:
    """SHA-256 of a stream, chunk by chunk, and of its first ``header_size`` bytes."""

    def __init__(self, header_size: int) -> None:
        self.size = 0
        self.header_digest = ""
        self._header_size = header_size
        self._header = hashlib.sha256()
        self._current = hashlib.sha256()
        self._done: list[str] = []

    def update(self, view: memoryview) -> None:
        """Take the next bytes."""
        if self.size < self._header_size:
            self._header.update(view[: self._header_size - self.size])
            self.header_digest = self._header.hexdigest()
        while len(view):
            part = view[: CHUNK - self.size % CHUNK]
            self._current.update(part)
            self.size += len(part)
            view = view[len(part) :]
            if self.size % CHUNK == 0:
                self._end_chunk()

    def _end_chunk(self) -> None:
        self._done.append(self._current.hexdigest())
        self._current = hashlib.sha256()

    def finish(self) -> list[str]:
        """The digests of all chunks."""
        if self.size % CHUNK:
            self._end_chunk()
        return self._done


# -- reading --------------------------------------------------------------------------------------


class ArchiveReader:
    """A mapped file and its checked directory.

    Attributes:
        memory: the whole file, writable without effect on it.

    Raises:
        ArtifactError: not a file of ours, too new, truncated, or its directory is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, "rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            if self.size == 0:
                raise ArtifactError(f"{path} is empty.")
            self.memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            self.manifest, places = self._read_directory(file)
        self._members = {m.name: m for m in self.manifest.members}
        self._places = places
        self._verified = False
        self._lock = threading.Lock()

    def _read_directory(self, file: BinaryIO) -> tuple[schema.ManifestDoc, dict[str, int]]:
        try:
            with zipfile.ZipFile(file) as archive:
                infos = {i.filename: i for i in archive.infolist()}
                if schema.MANIFEST not in infos:
                    raise ArtifactError(
                        f"{self.path} is a zip file, but not a stillframe artifact.",
                        why=f"it has no {schema.MANIFEST}",
                        hints=_foreign_hints(infos),
                    )
                if infos[schema.MANIFEST].compress_type != zipfile.ZIP_STORED:
                    raise ArtifactError(f"{self.path} is damaged: its manifest is compressed.")
                text = archive.read(schema.MANIFEST)  # checks its CRC
            manifest = _read_manifest(self.path, text)
            return manifest, self._locate(manifest, infos)
        except ArtifactError:
            raise
        except _ZIP_ERRORS as e:
            raise ArtifactError(
                f"{self.path} is not a stillframe artifact, or is damaged.",
                why=f"its zip directory cannot be read: {e}",
                hints=["copy or save the file again"],
            ) from None

    def _locate(
        self, manifest: schema.ManifestDoc, infos: dict[str, zipfile.ZipInfo]
    ) -> dict[str, int]:
        """Where each member's bytes begin."""
        places: dict[str, int] = {}
        wanted = [m.name for m in manifest.members]
        if sorted(wanted) not in map(sorted, schema.MEMBERS):
            if manifest.minor > schema.MINOR:
                raise ArtifactError(
                    f"{self.path} holds something that this stillframe does not know.",
                    why=f"its format version is {manifest.major}.{manifest.minor}, and it has "
                    f"{', '.join(wanted)}",
                    hints=["update stillframe"],
                )
            raise ArtifactError(f"{self.path} is damaged: its manifest lists {wanted}.")
        for member in manifest.members:
            info = infos.get(member.name)
            if info is None:
                raise ArtifactError(f"{self.path} is damaged: {member.name} is missing.")
            sizes = (info.file_size, info.compress_size)
            if info.compress_type != zipfile.ZIP_STORED or sizes != (member.size, member.size):
                raise ArtifactError(f"{self.path} is damaged: {member.name} has another size.")
            header = self.memory[info.header_offset : info.header_offset + _LOCAL_HEADER.size]
            signature, *_, name_size, extra_size = _LOCAL_HEADER.unpack(header)
            name_at = info.header_offset + _LOCAL_HEADER.size
            if (
                signature != b"PK\3\4"
                or self.memory[name_at : name_at + name_size] != member.name.encode()
            ):
                raise ArtifactError(
                    f"{self.path} is damaged: {member.name} is not where it should be."
                )
            begin = name_at + name_size + extra_size
            if begin + member.size > self.size:
                raise ArtifactError(f"{self.path} is truncated: {member.name} does not fit in it.")
            places[member.name] = begin
        return places

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def place(self, name: str) -> tuple[int, int]:
        """``(begin, end)`` of a member's bytes in :attr:`memory`."""
        begin = self._places[name]
        return begin, begin + self._members[name].size

    def read(self, name: str) -> bytes:
        """A whole member, verified."""
        self._verify_member(self._members[name])
        begin, end = self.place(name)
        return self.memory[begin:end]

    def read_header(self, name: str) -> bytes:
        """The first bytes of a member, those with a digest of their own, verified."""
        member = self._members[name]
        begin, _ = self.place(name)
        found = self.memory[begin : begin + min(member.header_size, member.size)]
        if hashlib.sha256(found).hexdigest() != member.header:
            raise self._damaged(name)
        return found

    def verify(self) -> None:
        """Check every byte of every member against its digest; once.

        Raises:
            ArtifactError: the file was altered.
        """
        with self._lock:
            if not self._verified:
                for member in self.manifest.members:
                    self._verify_member(member)
                self._verified = True

    def _verify_member(self, member: MemberDoc) -> None:
        chunk = self.manifest.chunk
        begin, end = self.place(member.name)
        starts = range(begin, end, chunk)
        if len(member.digests) != len(starts):
            raise self._damaged(member.name)
        with (
            memoryview(self.memory) as view,
            ThreadPoolExecutor(_READERS) as pool,
        ):

            def digest(start: int) -> str:
                with view[start : min(start + chunk, end)] as part:
                    return hashlib.sha256(part).hexdigest()

            found = list(map(digest, starts) if len(starts) < 2 else pool.map(digest, starts))
        if found != member.digests:
            raise self._damaged(member.name)

    def _damaged(self, name: str) -> ArtifactError:
        return ArtifactError(
            f"{self.path} is damaged: {name} differs from what was written.",
            hints=["copy or save the file again"],
        )


def _read_manifest(path: Path, text: bytes) -> schema.ManifestDoc:
    class Version(msgspec.Struct):
        format: str
        major: int
        minor: int

    try:
        version = msgspec.json.decode(text, type=Version)
        if version.format != schema.FORMAT:
            raise ArtifactError(
                f"{path} is not a stillframe artifact, but {version.format[:40]!r}."
            )
        if version.major != schema.MAJOR:
            newer = version.major > schema.MAJOR
            raise ArtifactError(
                f"{path} has format version {version.major}.{version.minor}; this stillframe reads "
                f"version {schema.MAJOR}.",
                hints=[
                    "update stillframe" if newer else "load it with the stillframe that wrote it"
                ],
            )
        manifest = msgspec.json.decode(text, type=schema.ManifestDoc)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise ArtifactError(f"{path} is damaged: its manifest cannot be read ({e}).") from None
    if manifest.chunk <= 0:
        raise ArtifactError(f"{path} is damaged: its manifest makes no sense.")
    return manifest


def _foreign_hints(names: Iterable[str]) -> list[str]:
    if any(
        n.endswith(("data.pkl", "archive_format", "serialized_exported_program.json"))
        for n in names
    ):
        return ["it looks like a file of torch.save or torch.export.save: load it with torch"]
    return []
