"""Unpack gzip, zstd and single-member zip, but no bombs and no half files."""

import gzip
import io
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Protocol

import pyarrow as pa

from nextbuy.data.options import Limits
from nextbuy.errors import UnreadableFileError

_CHUNK = 1 << 20


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def unpack(name: str, data: bytes, limits: Limits) -> tuple[bytes, str]:
    """The content of a packed file and the name of that content; others are given back.

    Raises:
        UnreadableFileError: If it is damaged, grows beyond the limits, or is a zip with anything
            but one plain file.
    """
    if data.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            return _drain(name, stream, len(data), limits), str(Path(name).with_suffix(""))
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        try:
            with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
                return _drain(name, stream, len(data), limits), str(Path(name).with_suffix(""))
        except pa.ArrowInvalid as error:
            raise UnreadableFileError(f"{name} is damaged: {error}.") from error
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _unzip(name, data, limits)
    if Path(name).suffix.lower() in (".gz", ".zst", ".zstd", ".zip") and data:
        raise UnreadableFileError(
            f"{name} is named like a packed file, but begins with {data[:4].hex(' ')}, "
            "which is neither gzip, zstd nor zip."
        )
    return data, name


def _unzip(name: str, data: bytes, limits: Limits) -> tuple[bytes, str]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            member = _only_member(name, archive.infolist())
            with archive.open(member) as stream:
                content = _drain(name, stream, max(member.compress_size, 1), limits)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        raise UnreadableFileError(f"{name} is a damaged or unusual zip file: {error}.") from error
    if content.startswith((b"PK\x03\x04", b"\x1f\x8b")):
        raise UnreadableFileError(f"{name} holds a packed file inside a packed file; unpack it.")
    return content, member.filename


def _only_member(name: str, members: list[zipfile.ZipInfo]) -> zipfile.ZipInfo:
    if len(members) != 1:
        names = ", ".join(repr(member.filename) for member in members[:3])
        raise UnreadableFileError(
            f"{name} holds {len(members)} members ({names}); a zip file must hold exactly one file."
        )
    member = members[0]
    path = PurePosixPath(member.filename.replace("\\", "/"))
    mode = member.external_attr >> 16
    if path.is_absolute() or ".." in path.parts or ":" in member.filename:
        raise UnreadableFileError(f"{name} holds the unsafe name {member.filename!r}; refused.")
    if member.is_dir() or (stat.S_IFMT(mode) not in (0, stat.S_IFREG)):
        raise UnreadableFileError(f"{name} holds {member.filename!r}, which is no regular file.")
    if member.flag_bits & 1:
        raise UnreadableFileError(f"{name} is encrypted; unpack it first.")
    return member


def _drain(name: str, stream: _Stream, packed: int, limits: Limits) -> bytes:
    """Everything in a stream, given up as soon as it is too much."""
    chunks: list[bytes] = []
    total = 0
    try:
        while chunk := stream.read(_CHUNK):
            total += len(chunk)
            if total > limits.unpacked_bytes or (
                total > limits.ratio_floor_bytes and total > limits.ratio * packed
            ):
                raise UnreadableFileError(
                    f"{name} unpacks from {packed} bytes to more than {total}: over the limits of "
                    f"{limits.ratio}:1 and {limits.unpacked_bytes} bytes. If it is honest, unpack "
                    "it first."
                )
            chunks.append(chunk)
    except (EOFError, OSError, zlib.error) as error:
        raise UnreadableFileError(
            f"{name} is damaged after {total} unpacked bytes: {error}. Nothing was kept."
        ) from error
    return b"".join(chunks)
