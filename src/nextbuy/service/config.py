"""Limits and settings of the service; unknown keys are errors, every limit has a test."""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nextbuy.errors import ConfigError


class Limits(BaseModel):
    """What one client may ask, and how long it may take. Sizes are bytes, times seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    body_bytes: int = Field(default=2**20, ge=1)
    bulk_bytes: int = Field(default=2**25, ge=1, description="of one NDJSON upload")
    buffered_bytes: int = Field(default=2**27, ge=1, description="of all bodies in memory")
    line_bytes: int = Field(default=2**16, ge=1, description="of one line of it")
    json_depth: int = Field(default=32, ge=1)
    json_keys: int = Field(default=1_000, ge=32, description="of one object; boosts are one")
    headers: int = Field(default=100, ge=1)
    header_bytes: int = Field(default=2**15, ge=1, description="all headers together")
    path_bytes: int = Field(default=2048, ge=1, description="path and query together")
    id_bytes: int = Field(default=256, ge=1)
    k: int = Field(default=1_000, ge=1)
    users: int = Field(default=1_000, ge=1, description="questions of one request")
    history: int = Field(default=10_000, ge=1, description="purchases of one history")
    purchases: int = Field(default=1_000, ge=1, description="of one JSON request")
    concurrency: int = Field(default=256, ge=1, description="requests that are worked on")
    queue: int = Field(default=256, ge=0, description="requests that wait; more are told 503")
    connections: int = Field(default=4_096, ge=1)
    header_seconds: float = Field(default=10.0, gt=0)
    body_seconds: float = Field(default=30.0, gt=0)
    handler_seconds: float = Field(default=5.0, gt=0, description="but for jobs")
    keep_alive_seconds: float = Field(default=15.0, gt=0)
    write_seconds: float = Field(default=30.0, gt=0, description="for a slow reader")
    rate: float = Field(default=1_000.0, gt=0, description="requests a second of one key")
    burst: int = Field(default=2_000, ge=1)
    offers: int = Field(default=100_000, ge=1, description="of one answer: questions times k")
    future_seconds: float = Field(
        default=86_400.0, ge=0, description="a purchase may lie so far ahead of our clock"
    )


class JobLimits(BaseModel):
    """How much long work there may be, and how long results are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    waiting: int = Field(default=8, ge=0, description="besides the one that runs")
    kept: int = Field(default=32, ge=1, description="that have ended")
    kept_seconds: float = Field(default=3_600.0, gt=0)
    result_bytes: int = Field(default=2**28, ge=1, description="of all results together")


class ServiceSettings(BaseModel):
    """How the service runs; a TOML file may have these keys, with `limits` and `jobs` as tables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="another one needs keys")
    port: int = Field(default=8000, ge=0, le=65_535, description="0 takes a free one")
    store: str | None = Field(default=None, description="URL; None is a file beside the bundle")
    keys: Path | None = Field(default=None, description="file of keys; None is this machine only")
    allowed_hosts: tuple[str, ...] = Field(default=(), description="more names for Host")
    page: bool = Field(default=True, description="whether there is a page for people")
    model_process: bool | None = Field(
        default=None,
        description="whether the model has a process of its own; None: if there are two cores",
    )
    limits: Limits = Limits()
    jobs: JobLimits = JobLimits()
    served_share: float = Field(
        default=0.1, ge=0, le=1, description="of the answers that are kept to be judged"
    )
    served_days: float = Field(
        default=90.0, ge=30, description="answers are kept so long; they are judged for 30"
    )
    watch_seconds: float = Field(default=300.0, gt=0, description="from one judgement to the next")
    ready_seconds: float = Field(default=1.0, ge=0, description="one look at the store holds")

    @classmethod
    def of(cls, file: Path | None, told: Mapping[str, Any]) -> Self:
        """The settings of a TOML file, and those that were told otherwise.

        Args:
            file: None for the defaults.
            told: By name; a value of None was not told.

        Raises:
            ConfigError: If the file cannot be read, or a key or value is wrong.
        """
        try:
            found = {} if file is None else tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"Settings cannot be read from {file}: {error}.") from error
        found |= {name: value for name, value in told.items() if value is not None}
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise ConfigError(f"There is no setting {name}.{_nearest(name)}") from error
            raise ConfigError(f"The setting {name} is wrong: {first['msg']}.") from error


def _nearest(name: str) -> str:
    """Which setting may have been meant, wherever it belongs."""
    tables: dict[str, type[BaseModel]] = {
        "": ServiceSettings, "limits.": Limits, "jobs.": JobLimits,
    }  # fmt: skip
    known = {key: table + key for table, kind in tables.items() for key in kind.model_fields}
    found = difflib.get_close_matches(name.rpartition(".")[2], known, n=1)
    return f" Did you mean {known[found[0]]}?" if found else ""
