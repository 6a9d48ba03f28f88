"""Keys of clients: 256 random bits, of which only a SHA-256 is kept.

The file is JSON of mode 0600: `{"format": 1, "keys": [{"name", "sha256", "scopes", "created"}]}`.
Whoever reads it cannot use a key; whoever can write it can add one.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from nextbuy.errors import ConfigError, DamagedError
from nextbuy.service.guard.scopes import KEY_SCOPES, Scope
from nextbuy.storage import StorageError, read_json, sync, write_json

_log = logging.getLogger(__name__)

PREFIX: Final = "nb_"
_FORMAT: Final = 1
_SECONDS_BETWEEN_LOOKS: Final = 1.0
_KEY: Final = re.compile(rb"nb_[A-Za-z0-9_-]{43}")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What is kept of a key.

    Attributes:
        name: Whose it is; in logs, so no secret.
        digest: SHA-256 of the key.
        scopes: Of `KEY_SCOPES`; they do not include each other but for `admin`, which is all.
        created: ISO 8601, UTC.
    """

    name: str
    digest: bytes
    scopes: frozenset[str]
    created: str

    def may(self, scope: Scope) -> bool:
        """Whether routes of this scope are open to the key."""
        return scope == "public" or scope in self.scopes or "admin" in self.scopes


def read_keys(path: Path) -> tuple[Key, ...]:
    """All keys of a file.

    Raises:
        ConfigError: If others than the owner may write the file.
        DamagedError: If it is missing or is no file of keys.
    """
    path = path.resolve()  # a secret that is mounted is a link, which moves when it changes
    if not path.exists():
        raise DamagedError(
            f"There is no file of keys {path}. Make one with: nextbuy keys add {path} "
            "--name NAME --scope read"
        )
    found = read_json(path)
    if os.name == "posix" and path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"Others may write {path} and so add keys. Say: chmod 600 {path}")
    try:
        if set(found) != {"format", "keys"} or found["format"] != _FORMAT:
            raise ValueError(f"it needs format {_FORMAT} and keys")
        keys = tuple(_key_of(entry) for entry in found["keys"])
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DamagedError(f"{path} is no file of keys: {error}.") from error
    if len({key.name for key in keys}) != len(keys):
        raise DamagedError(f"{path} is no file of keys: a name stands twice.")
    return keys


def add_key(path: Path, name: str, scopes: Iterable[str]) -> str:
    """Make a new key, keep its digest durably, and give the key: it cannot be had again.

    Raises:
        ConfigError: If the name is taken or no name, or a scope is unknown.
        StorageError: If the disk refuses; the file is what it was.
    """
    asked = frozenset(scopes)
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name a key: 1 to 64 of a-z, 0-9, '.', '_', '-', the first of a-z, 0-9"
        )
    if not asked or asked - set(KEY_SCOPES):
        raise ConfigError(
            f"A key needs scopes of {', '.join(KEY_SCOPES)}, not {sorted(asked) or 'none'}."
        )
    key = PREFIX + secrets.token_urlsafe(32)
    with FileLock(f"{path}.lock"):
        keys = read_keys(path) if path.exists() else ()
        if name in {one.name for one in keys}:
            raise ConfigError(f"{path} has a key named {name!r} already: remove it first.")
        created = datetime.now(UTC).isoformat(timespec="seconds")
        new = Key(name=name, digest=_digest(key.encode()), scopes=asked, created=created)
        _write(path, [*keys, new])
    return key


def remove_key(path: Path, name: str) -> None:
    """Forget a key; a running service stops taking it within a second.

    Raises:
        ConfigError: If there is none of that name.
    """
    with FileLock(f"{path}.lock"):
        keys = read_keys(path)
        left = [key for key in keys if key.name != name]
        if len(left) == len(keys):
            known = ", ".join(key.name for key in keys) or "none"
            raise ConfigError(f"{path} has no key named {name!r}; it has: {known}.")
        _write(path, left)


class KeyRing:
    """The keys that a running service takes; it notices within a second when the file changes.

    Without a file there are no keys, and the guard lets loopback clients in (`is_open`). A file
    that goes missing or is damaged while the service runs lets nobody in until it is whole again.

    Raises:
        ConfigError: As `read_keys`.
        DamagedError: As `read_keys`.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_open = path is None
        self._path = path
        self._clock = clock
        self._keys: Sequence[Key] = () if path is None else read_keys(path)
        self._mark = self._look()
        self._next_look = clock() + _SECONDS_BETWEEN_LOOKS

    def find(self, authorization: bytes | None) -> Key | None:
        """The key in an `Authorization` header; None for anything that is not exactly one.

        Every key is compared in full, so that the time says nothing about how near a guess is.
        """
        self._refresh()
        if authorization is None or authorization[:7].lower() != b"bearer ":
            return None
        if not _KEY.fullmatch(authorization, 7):
            return None
        digest, found = _digest(authorization[7:]), None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def _refresh(self) -> None:
        now = self._clock()
        if self._path is None or now < self._next_look:
            return
        self._next_look = now + _SECONDS_BETWEEN_LOOKS
        mark = self._look()
        if mark == self._mark:
            return
        self._mark = mark
        try:
            self._keys = read_keys(self._path)
            _log.info("keys were read again: %d", len(self._keys))
        except (ConfigError, DamagedError) as error:
            self._keys = ()
            _log.error("no key is taken any more: %s", error)

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat() if self._path else None
        except OSError:
            return None
        return status and (status.st_ino, status.st_mtime_ns, status.st_size)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _key_of(entry: Any) -> Key:
    if set(entry) != {"name", "sha256", "scopes", "created"}:
        raise ValueError("a key needs exactly name, sha256, scopes and created")
    if not _NAME.fullmatch(entry["name"]) or not _DIGEST.fullmatch(entry["sha256"]):
        raise ValueError("a name or a digest is wrong")
    scopes = frozenset(entry["scopes"])
    if not isinstance(entry["scopes"], list) or not scopes or scopes - set(KEY_SCOPES):
        raise ValueError(f"scopes must be some of {', '.join(KEY_SCOPES)}")
    return Key(
        name=entry["name"],
        digest=bytes.fromhex(entry["sha256"]),
        scopes=scopes,
        created=str(entry["created"]),
    )


def _write(path: Path, keys: Iterable[Key]) -> None:
    """Put a new file in place of the old one in one step; only its owner may read it."""
    path = path.resolve()
    entries = [
        {
            "name": key.name, "sha256": key.digest.hex(),
            "scopes": sorted(key.scopes), "created": key.created,
        }
        for key in keys
    ]  # fmt: skip
    temporary = path.with_name(f"tmp-{uuid.uuid4().hex}.json")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        write_json(temporary, {"format": _FORMAT, "keys": entries})
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"{path} could not be written: {error.strerror}.") from error
