"""A store by its URL."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from nextbuy.errors import ConfigError, MissingExtraError
from nextbuy.service.store.protocol import Store

_SQLITE: Final = "sqlite:///"
_POSTGRES: Final = ("postgresql://", "postgres://")
_PASSWORD: Final = re.compile(r"(?<=://)([^/?#@:]*):[^/?#]*(?=@)")
_SECRET: Final = re.compile(r"(?<=[?&])(password|sslpassword|passfile)=[^&#]*", re.IGNORECASE)


def open_store(url: str, *, read_only: bool = False) -> Store:
    """Open a store, and bring it to the newest version.

    Args:
        url: `sqlite:///PATH`, a bare path, or `postgresql://USER:PASSWORD@HOST:PORT/NAME`.
        read_only: Change nothing and take no lock, so that a service may be running on it.

    Raises:
        ConfigError: If it is a URL of something else.
        MissingExtraError: If the driver is not installed.
        StoreError: If the store is damaged, in use or something else.
        StoreUnavailableError: If it cannot be reached now.
    """
    if url.startswith(_POSTGRES):
        if find_spec("psycopg") is None:
            raise MissingExtraError("psycopg", "postgres", "A store in PostgreSQL")
        from nextbuy.service.store.postgres import PostgresStore

        return PostgresStore(url, shown(url), read_only=read_only)
    path = path_of(url)
    if find_spec("apsw") is None:
        raise MissingExtraError("apsw", "serve", "A store in a file")
    from nextbuy.service.store.sqlite import SqliteStore

    return SqliteStore(path, read_only=read_only)


def path_of(url: str) -> Path:
    """The file of a URL: `sqlite:///live.db` is relative, `sqlite:////srv/live.db` is not.

    Raises:
        ConfigError: If it is not one of SQLite.
    """
    if url.startswith(_SQLITE):
        name = unquote(url.removeprefix(_SQLITE))
    elif "://" in url or url.startswith("sqlite:"):
        raise ConfigError(
            f"{shown(url)} is no store. Give a path, sqlite:///PATH or "
            "postgresql://USER:PASSWORD@HOST/NAME."
        )
    else:
        name = url
    if not name or name == ":memory:" or "\0" in name:
        raise ConfigError(f"{shown(url)!r} names no file. Give a path such as live.db.")
    return Path(name)


def shown(url: str) -> str:
    """A URL as it may be shown and logged: without passwords."""
    return _SECRET.sub(r"\1=***", _PASSWORD.sub(r"\1:***", url))
