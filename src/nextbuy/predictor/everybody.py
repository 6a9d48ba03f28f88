"""Offers for many users as a folder of Parquet files, one for each block of users.

A file appears whole or not at all, so that a run that was stopped goes on with the blocks that are
missing. Blocks are cut where `predict` cuts users, and hold what it answers for all at once, bit by
bit. `_manifest.json` comes last: where it is, all parts are there and have the hashes it names.
"""

import hashlib
import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from nextbuy import __version__, storage
from nextbuy.data.histories import Histories
from nextbuy.errors import DamagedError, ResumeError
from nextbuy.predictor.answering import Answering
from nextbuy.predictor.answers import users_at_once
from nextbuy.progress import Progress, SilentProgress
from nextbuy.splitting.rules import Rules
from nextbuy.training.checkpoint import run_lock

MANIFEST: Final = "_manifest.json"
_RUN: Final = "_run"
_REQUEST: Final = "request.json"
_CHUNKS: Final = 4
"""Of a block: so many times as many users as are asked about together."""


class ScoreRequest(BaseModel):
    """What is asked for each user; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(default=10, ge=1, description="items a user")
    model: str | None = Field(default=None, description="which answers; None is the best")
    rules: Rules | None = Field(default=None, description="of the shop; None is those of the fit")


@dataclass(frozen=True, slots=True, eq=False)
class BlockScorer:
    """Answers for one block of users after the other.

    Attributes:
        predictor: Is asked.
        who: All users.
        request: What is asked for each.
        block_users: Users of a block, but for the last.
    """

    predictor: Answering
    who: Histories
    request: ScoreRequest
    block_users: int

    @classmethod
    def of(cls, predictor: Answering, who: Histories, request: ScoreRequest) -> "BlockScorer":
        """With blocks of several times the users that are asked about together.

        Raises:
            ConfigError: If there is no such model.
        """
        model = predictor.models[predictor.named_model(request.model)]
        followed = predictor.config.rules if request.rules is None else request.rules
        at_once = users_at_once(model, predictor.catalog, has_rules=followed is not None)
        return cls(predictor, who, request, _CHUNKS * at_once)

    def __len__(self) -> int:
        return math.ceil(len(self.who) / self.block_users)

    def offers(self, number: int) -> pl.DataFrame:
        """The table of block `number`, as `Answering.predict` gives it."""
        size = self.block_users
        users = np.arange(number * size, min((number + 1) * size, len(self.who)))
        return self.predictor.predict(
            self.who.take(users),
            k=self.request.k, model=self.request.model, rules=self.request.rules,
        )  # fmt: skip


Scoring = Callable[[BlockScorer, Sequence[int]], Iterator[tuple[int, pl.DataFrame]]]
"""Gives the tables of these blocks with their numbers, in any order."""


def score_here(scorer: BlockScorer, numbers: Sequence[int]) -> Iterator[tuple[int, pl.DataFrame]]:
    """One after the other, in this process."""
    for number in numbers:
        yield number, scorer.offers(number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What is in the folder now.

    Attributes:
        users: Whom was asked about.
        rows: Offers in all.
        parts: Files.
        resumed: Files that were there before.
    """

    users: int
    rows: int
    parts: int
    resumed: int


def score_everybody(
    scorer: BlockScorer,
    folder: Path,
    *,
    bundle_hash: str,
    scoring: Scoring = score_here,
    progress: Progress | None = None,
) -> Scored:
    """Write the offers of all users into a folder; the same call goes on after a kill.

    Args:
        scorer: Whom it is about, and what is asked.
        folder: Is made when missing, and locked meanwhile.
        bundle_hash: Of the bundle that answers; see `content_hash`.
        scoring: Where blocks are computed.
        progress: Told about users.

    Raises:
        ResumeError: If the folder has parts of another request, bundle or other users.
        StorageError: If the disk refuses; parts that are there stay.
        DamagedError: If a part that is there cannot be read.
    """
    progress = progress or SilentProgress()
    with run_lock(folder / _RUN):
        request = _request(scorer, bundle_hash)
        _refuse_others(folder, request)
        names = {number: f"part-{number:06d}.parquet" for number in range(len(scorer))}
        missing = [number for number, name in names.items() if not (folder / name).exists()]
        done = len(names) - len(missing)
        progress.start("score", len(names), done=done)
        try:
            if missing:
                with closing(scoring(scorer, missing)) as tables:  # type: ignore[type-var]
                    for number, table in tables:
                        _write(table, folder / names[number])
                        storage.failpoint("after_part")
                        progress.advance(1, {})
        finally:
            progress.finish()
        files = {name: _facts(folder / name) for name in names.values()}
        _write_json({"request": request, "files": files}, folder / MANIFEST)
    rows = sum(one["rows"] for one in files.values())
    return Scored(users=len(scorer.who), rows=rows, parts=len(files), resumed=done)


def _request(scorer: BlockScorer, bundle_hash: str) -> dict[str, Any]:
    who, digest = scorer.who, hashlib.sha256()
    for array in (who.items, who.times, who.baskets, who.offsets):
        digest.update(np.ascontiguousarray(array).data)
    for user in who.user_ids:
        digest.update(f"{len(user)} {user}".encode())
    asked = scorer.request.model_dump(mode="json")
    asked["model"] = scorer.predictor.named_model(scorer.request.model)
    return {
        "nextbuy": __version__,
        "bundle": bundle_hash,
        "users": f"{len(who)}, {digest.hexdigest()[:16]}",
        "users_a_part": scorer.block_users,
        **asked,
    }


def _refuse_others(folder: Path, request: Mapping[str, Any]) -> None:
    path = folder / _RUN / _REQUEST
    if not path.exists():
        if found := sorted(folder.glob("part-*.parquet")):
            raise ResumeError(f"{found[0]} was not written by this command. Give another --out.")
        _write_json(request, path)
        return
    stored = storage.read_json(path)
    names = [n for n in {**stored, **request} if stored.get(n) != request.get(n)]
    if names:
        said = "; ".join(f"{n}: was {stored.get(n)!r}, asked {request.get(n)!r}" for n in names)
        raise ResumeError(
            f"{folder} was begun differently: {said}. Give the first command again, or another "
            "--out."
        )


def _write(table: pl.DataFrame, path: Path) -> None:
    def write(beside: Path) -> None:
        pq.write_table(table.to_arrow(), beside, write_page_checksum=True)

    _atomically(path, write)


def _write_json(value: Mapping[str, Any], path: Path) -> None:
    _atomically(path, lambda beside: storage.write_json(beside, value))


def _atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let a file appear whole and on disk, or not at all."""
    beside = path.parent / _RUN / f"tmp-{uuid.uuid4().hex}"
    if path.parent.name == _RUN:
        beside = path.parent / beside.name
    try:
        write(beside)
        storage.sync(beside)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise storage.StorageError(
            f"{path} could not be written: {error.strerror or error}. Parts that were there before "
            "are untouched; give the same command again to go on."
        ) from error


def _facts(path: Path) -> dict[str, Any]:
    try:
        rows = pq.read_metadata(path).num_rows
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"rows": rows, "size": path.stat().st_size, "sha256": digest}
    except (OSError, pa.ArrowException) as error:
        raise DamagedError(
            f"{path} cannot be read: {error}. Delete it, and give the same command again."
        ) from error
