"""Files that survive a crash: strict JSON, arrays, and folders that appear whole or not at all.

A folder is published in this order: write `tmp-<uuid>/`, fsync each file, write `manifest.json`
with size and SHA-256 of every file, fsync it and the folder, rename, fsync the parent. A reader
that verifies the manifest therefore sees the old state or the new one, never a mix.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from nextbuy.errors import DamagedError, NextbuyError

MANIFEST: Final = "manifest.json"
LATEST: Final = "LATEST"
MANIFEST_FORMAT: Final = 1
MAX_JSON_BYTES: Final = 16 << 20
MAX_DEPTH: Final = 32
MAX_HEADER_BYTES: Final = 16 << 20

FAILPOINTS: Final = (
    "after_tmp_write",
    "before_manifest",
    "mid_manifest",
    "after_manifest",
    "after_dir_fsync",
    "after_rename",
    "after_parent_fsync",
    "before_latest",
    "mid_latest",
    "after_latest",
)
"""Moments inside `publish` and `point_latest` at which a test can kill the process."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_RESERVED: Final = {"con", "prn", "aux", "nul"} | {
    f"{p}{n}" for p in ("com", "lpt") for n in range(10)
}
_passed: dict[str, int] = {}


class StorageError(NextbuyError):
    """Something could not be written; what was there before is untouched."""


def failpoint(name: str) -> None:
    """Kill this process with SIGKILL if the environment asks for it here.

    `NEXTBUY_FAILPOINT=name` means the first time that `name` is passed, `name:3` the third. Only
    tests set it.
    """
    asked = os.environ.get("NEXTBUY_FAILPOINT")
    if not asked:
        return
    wanted, _, count = asked.partition(":")
    if wanted != name:
        return
    _passed[name] = _passed.get(name, 0) + 1
    if _passed[name] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)


def check_name(text: str) -> str:
    """The text itself, if it is safe as the name of a file or folder.

    Raises:
        DamagedError: If it is not 1 to 64 of a-z, 0-9, dot, dash and underscore, or is reserved.
    """
    stem = text.split(".", maxsplit=1)[0]
    if not _NAME.fullmatch(text) or stem in _RESERVED or text.endswith("."):
        raise DamagedError(
            f"{text[:80]!r} is not a safe name: use 1 to 64 of a-z, 0-9, '.', '-', '_', "
            "beginning with a letter or digit."
        )
    return text


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, so that equal values give equal bytes; fsynced.

    Raises:
        ValueError: If a number is not finite or the value is not JSON.
    """
    text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    _write_synced(path, [text.encode("utf-8"), b"\n"])


def read_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """Read strict JSON: UTF-8, finite numbers, no key twice, limited size and depth.

    Raises:
        DamagedError: If it is anything else.
    """
    data = _read_regular(path, max_bytes)
    _check_depth(data, max_depth, path)
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_distinct_keys, parse_constant=_no_constant,
            parse_float=_finite_float,
        )  # fmt: skip
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is not valid JSON: {error}") from error


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as safetensors, ordered by name, so that equal arrays give equal bytes."""
    ordered = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    _write_synced(path, [save(ordered)])


def read_arrays(path: Path, *, max_bytes: int = 1 << 40) -> dict[str, NDArray[Any]]:
    """Read safetensors into memory.

    Raises:
        DamagedError: If the file is not what its header says, or no safetensors at all.
    """
    data = _read_regular(path, max_bytes)
    header = int.from_bytes(data[:8], "little") if len(data) >= 8 else -1
    if not 2 <= header <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise DamagedError(f"{path} is no safetensors file: its header has {header} bytes.")
    try:
        loaded, data = load(data), b""  # a large table is held twice for a moment, not three times
        return {name: np.array(loaded.pop(name)) for name in sorted(loaded)}
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path} is no valid safetensors file: {error}") from error


def publish(
    parent: Path,
    name: str,
    write: Callable[[Path], None],
    *,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Make the folder `parent/name` appear, whole and on disk, or not at all.

    Args:
        parent: Is made when missing.
        name: See `check_name`.
        write: Writes regular files into the folder that it is given.
        facts: Kept in the manifest, for example versions.

    Raises:
        StorageError: If the name is taken, or the disk refuses; the temporary folder is removed.
        DamagedError: If `write` made something that `verify` would refuse.
    """
    target = parent / check_name(name)
    temporary = parent / f"tmp-{uuid.uuid4().hex}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        write(temporary)
        failpoint("after_tmp_write")
        files = _files_of(temporary)
        for file in files:
            sync(file)
        failpoint("before_manifest")
        entries = {_safe(f.relative_to(temporary).as_posix()): _entry(f) for f in files}
        manifest = {"format": MANIFEST_FORMAT, "files": entries, "facts": dict(facts or {})}
        write_json(temporary / MANIFEST, manifest)
        failpoint("after_manifest")
        for folder in sorted({f.parent for f in files} | {temporary}, reverse=True):
            sync(folder)
        failpoint("after_dir_fsync")
        if target.exists():  # rename would replace an empty folder silently
            raise FileExistsError(errno.EEXIST, "File exists")
        temporary.rename(target)
        failpoint("after_rename")
        try:
            sync(parent)
        except OSError:
            target.rename(temporary)  # what is not durable must not stay
            raise
        failpoint("after_parent_fsync")
    except OSError as error:
        needed = _bytes_in(temporary)
        shutil.rmtree(temporary, ignore_errors=True)
        raise StorageError(_why(error, target, needed)) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def point_latest(parent: Path, name: str) -> None:
    """Make `LATEST` name a published folder, in one step.

    Raises:
        StorageError: If the disk refuses; `LATEST` is what it was.
    """
    path, temporary = parent / LATEST, parent / f"tmp-{uuid.uuid4().hex}.txt"
    content = check_name(name).encode() + b"\n"
    try:
        before = path.read_bytes() if path.exists() else None
        failpoint("before_latest")
        _write_synced(temporary, [content])
        failpoint("mid_latest")
        temporary.rename(path)
        failpoint("after_latest")
        try:
            sync(parent)
        except OSError:
            if before is None:
                path.unlink()
            else:
                temporary.write_bytes(before)
                temporary.rename(path)
            raise
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(_why(error, path, len(content))) from error


def latest(parent: Path) -> str | None:
    """The name that `LATEST` holds; None if there is no such file.

    Raises:
        DamagedError: If it holds something that is no name.
    """
    path = parent / LATEST
    if not path.exists():
        return None
    return check_name(_read_regular(path, 4096).decode("utf-8", "replace").strip())


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a published folder, after checking that the folder is exactly what it says.

    Raises:
        DamagedError: Naming the first file that is missing, changed, extra or not regular.
    """
    manifest = read_json(folder / MANIFEST, max_bytes=MAX_JSON_BYTES)
    entries = _entries_of(manifest, folder)
    found = {str(f.relative_to(folder)): f for f in _files_of(folder) if f != folder / MANIFEST}
    if missing := sorted(entries.keys() - found.keys()):
        raise DamagedError(f"{folder / missing[0]} is missing; the manifest lists it.")
    if extra := sorted(found.keys() - entries.keys()):
        raise DamagedError(f"{folder / extra[0]} is not in the manifest; nothing may be added.")
    for name, (size, digest) in entries.items():
        try:
            actual = found[name].stat().st_size
            if actual != size:
                raise DamagedError(f"{folder / name} has {actual} bytes, the manifest says {size}.")
            if _sha256(found[name]) != digest:
                raise DamagedError(f"{folder / name} was changed: its SHA-256 is another.")
        except OSError as error:
            raise DamagedError(f"{folder / name} cannot be read: {error.strerror}.") from error
    return dict(manifest)


def remove_leftovers(parent: Path) -> None:
    """Remove what killed writers left behind. Call it only while no other process writes here."""
    for path in parent.glob("tmp-*") if parent.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _write_synced(path: Path, parts: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for number, part in enumerate(parts):
            if number and path.name == MANIFEST:
                file.flush()
                failpoint("mid_manifest")
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _safe(path: str) -> str:
    for part in path.split("/"):
        check_name(part)
    return path


def _files_of(folder: Path) -> list[Path]:
    """All files below a folder; refuses links, devices and the like."""
    files = []
    for base, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(base) / name
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise DamagedError(f"{path} is neither a regular file nor a folder.")
            if stat.S_ISREG(mode):
                files.append(path)
    return sorted(files)


def _read_regular(path: Path, max_bytes: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DamagedError(f"{path} is not a regular file.")
            if status.st_size > max_bytes:
                raise DamagedError(f"{path} has {status.st_size} bytes of at most {max_bytes}.")
            return file.read(status.st_size)
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error.strerror}.") from error


def _check_depth(data: bytes, max_depth: int, path: Path) -> None:
    depth, in_text, escaped = 0, False, False
    for byte in data:
        if in_text:
            escaped, in_text = byte == 0x5C and not escaped, byte != 0x22 or escaped
        elif byte == 0x22:
            in_text = True
        elif byte in b"[{":
            depth += 1
            if depth > max_depth:
                raise DamagedError(f"{path} is nested deeper than {max_depth}.")
        elif byte in b"]}":
            depth -= 1


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not np.isfinite(value):
        raise ValueError(f"{text} is too large")
    return value


def _entry(file: Path) -> dict[str, Any]:
    return {"size": file.stat().st_size, "sha256": _sha256(file)}


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _entries_of(manifest: Any, folder: Path) -> dict[str, tuple[int, str]]:
    try:
        if set(manifest) != {"format", "files", "facts"} or not isinstance(manifest["facts"], dict):
            raise TypeError("it needs exactly format, files and facts")
        if manifest["format"] != MANIFEST_FORMAT:
            raise TypeError(f"its format is {manifest['format']!r}, not {MANIFEST_FORMAT}")
        entries = {}
        for name, entry in manifest["files"].items():
            if set(entry) != {"size", "sha256"} or type(entry["size"]) is not int:
                raise TypeError(f"the entry of {name} is wrong")
            entries[_safe(name)] = (entry["size"], str(entry["sha256"]))
    except (TypeError, KeyError, AttributeError) as error:
        raise DamagedError(f"{folder / MANIFEST} is no manifest: {error}.") from error
    return entries


def _bytes_in(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    return 0


def _why(error: OSError, target: Path, needed: int) -> str:
    reason = f"{target} could not be written: {error.strerror or error}."
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY):  # ENOTEMPTY: it appeared just before rename
        return f"{target} is there already; another writer was first. Nothing was changed."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(next(p for p in target.parents if p.exists())).free
            reason += f" At least {needed} bytes were needed, {free} are free."
    return f"{reason} What was there before is untouched."
