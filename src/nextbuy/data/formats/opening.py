"""From a path to the bytes of regular files: refuses what is no file, notices what changes."""

import errno
import os
import stat
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from nextbuy.data.formats.unpacking import unpack
from nextbuy.data.options import Limits
from nextbuy.errors import UnreadableFileError
from nextbuy.progress import Progress

SUFFIXES = {
    ".csv": "delimited",
    ".tsv": "delimited",
    ".tab": "delimited",
    ".txt": "delimited",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonlines",
    ".ndjson": "jsonlines",
    ".json": "jsonlines",
}
PACKED_SUFFIXES = (".gz", ".zst", ".zstd", ".zip")

_BLOCK = 1 << 30


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Opened:
    """A file that was read whole.

    Attributes:
        name: The path, as it is to be shown.
        data: Its bytes, unpacked.
        suffix: The suffix of the content, such as `.csv` of `log.csv.gz`; lower case.
        stored: The bytes as they lie on disk.
    """

    name: str
    data: bytes
    suffix: str
    stored: bytes


def files_of(source: str | Path) -> list[Path]:
    """The files that a path, a folder or a glob stands for, in the order of their names.

    Raises:
        UnreadableFileError: If there is none, or the path is no file or folder.
    """
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL) and any(c in str(source) for c in "*?["):
            found = sorted(Path(hit) for hit in glob(str(source), recursive=True))  # noqa: PTH207
            files = [hit for hit in found if hit.is_file()]
            if files:
                return files
            raise UnreadableFileError(f"The pattern {source} matches no file.") from error
        raise UnreadableFileError(f"{source} cannot be opened: {_why(error)}.") from error
    except ValueError as error:
        raise UnreadableFileError(f"{str(source)!r} is no path: {error}.") from error
    if stat.S_ISDIR(mode):
        return _files_in(path)
    if not stat.S_ISREG(mode):
        raise UnreadableFileError(
            f"{path} is {_kind(mode)}, not a regular file. Write the purchases to a file first."
        )
    return [path]


def open_file(path: Path, limits: Limits, progress: Progress) -> Opened:
    """Read a file into memory, once, so that everything later sees the same bytes.

    Raises:
        UnreadableFileError: If it cannot be read, is no regular file, has holes, cannot be
            unpacked, or changes while it is read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise UnreadableFileError(f"{path} cannot be opened: {_why(error)}.") from error
    try:
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise UnreadableFileError(
                    f"{path} is {_kind(before.st_mode)}, not a regular file. "
                    "Write the purchases to a file first."
                )
            _refuse_holes(path, descriptor, before.st_size, limits)
            blocks = []
            while block := file.read(_BLOCK):
                blocks.append(block)
                progress.advance(len(block), {})
            after = path.stat()
    except OSError as error:
        raise UnreadableFileError(f"{path} cannot be read: {_why(error)}.") from error
    data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
    if _signature(before) != _signature(after) or len(data) != before.st_size:
        raise UnreadableFileError(
            f"{path} changed while it was read: {before.st_size} bytes before, "
            f"{after.st_size} after. Nothing was kept; read it again when nobody writes to it."
        )
    unpacked, inner = unpack(str(path), data, limits)
    return Opened(name=str(path), data=unpacked, suffix=Path(inner).suffix.lower(), stored=data)


def _files_in(folder: Path) -> list[Path]:
    files = []
    for path in sorted(folder.rglob("*")):
        inner = path
        if path.suffix.lower() in PACKED_SUFFIXES:
            inner = path.with_suffix("")
        hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        if inner.suffix.lower() in SUFFIXES and not hidden and path.is_file():
            files.append(path)
    if not files:
        raise UnreadableFileError(
            f"The folder {folder} holds no file with a known suffix: "
            f"{', '.join(SUFFIXES)}, also packed as {', '.join(PACKED_SUFFIXES)}."
        )
    return files


def _refuse_holes(path: Path, descriptor: int, size: int, limits: Limits) -> None:
    """A hole longer than a line was never written: reading it would only fill memory."""
    if size <= limits.line_bytes or not hasattr(os, "SEEK_HOLE"):
        return
    hole = os.lseek(descriptor, 0, os.SEEK_HOLE)
    os.lseek(descriptor, 0, os.SEEK_SET)
    if hole < size:
        raise UnreadableFileError(
            f"{path} has {size} bytes, but from byte {hole} on there is a hole that was never "
            "written. It is sparse or the copy broke off; copy it again."
        )


def _signature(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISDIR, "a folder"),
    ):
        if test(mode):
            return name
    return "something else"


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
