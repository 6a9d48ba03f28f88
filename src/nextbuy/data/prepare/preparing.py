"""From a log of any size to histories in files: a forecast, one pass, buckets, one order."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from nextbuy.data.checking import baskets_of, why_empty
from nextbuy.data.encoding import LEVEL_COLUMNS
from nextbuy.data.options import ReadOptions
from nextbuy.data.prepare.buckets import EncodesBuckets, Encoding, Entries, encode_buckets, facts_of
from nextbuy.data.prepare.catalog import build_catalog
from nextbuy.data.prepare.gather import gather, order_users
from nextbuy.data.prepare.journal import WORK, Pieces, agree, only_one
from nextbuy.data.prepare.prepared import (
    CATALOG,
    HISTORIES,
    MARK,
    REJECTS,
    Prepared,
    finish,
    remove_work,
)
from nextbuy.data.prepare.scatter import Scattered, pairs_of, rejects_of, scatter
from nextbuy.data.prepare.survey import Forecast, PrepareConfig, Survey
from nextbuy.data.purchases import REJECT_SCHEMA, RowCounts
from nextbuy.errors import ColumnError, ConfigError, EmptyDataError
from nextbuy.progress import Progress, SilentProgress
from nextbuy.storage import sync

_SUMS: Final = ("rows", "duplicates", "left_out", "users", "purchases", "merged", "capped",
                "capped_users")  # fmt: skip
_TOLD: Final = ("rows", "users", "purchases", "num_merged", "num_capped", "num_capped_users",
                "num_left_out", "time_kind", "basket_kind", "level", "guesses",
                "fingerprint")  # fmt: skip


def forecast(source: str | Path, out: Path, config: PrepareConfig | None = None) -> Forecast:
    """What preparing a log will take of memory and disk, from the sizes of its files alone.

    Raises:
        DataError, ConfigError: If the source cannot be prepared.
    """
    return Survey.of(source).forecast(config or PrepareConfig(), out)


def prepare(
    source: str | Path,
    out: Path,
    config: PrepareConfig | None = None,
    options: ReadOptions | None = None,
    progress: Progress | None = None,
    *,
    where: EncodesBuckets | None = None,
) -> Prepared:
    """Make histories in files of a log that need not fit into memory.

    They are the same, to the byte, as `encode` makes of the same log in memory; the order of users
    is that of their ids. Where something was recognised (the unit of times, a decimal comma), each
    batch must say the same as the first, or the log is refused. A call that was killed goes on when
    it is made again, and ends with the same bytes; one that was finished is not done again.

    Args:
        source: A path, folder or glob of Parquet, or of CSV or TSV in UTF-8.
        out: Folder of the result; `train` takes it as data.
        config: Memory, buckets, level.
        options: How to read.
        progress: Told about the long parts.
        where: Encodes the buckets; without it this process does. Others must see `out` under the
            same name.

    Raises:
        MemoryIsShortError, StorageError: Before the start, if memory or disk will not do.
        DataError: As `read_purchases` and `encode` do.
        ResumeError: If something else was begun or made in this folder.
    """
    config, options = config or PrepareConfig(), options or ReadOptions()
    progress = progress or SilentProgress()
    out = out if where is None else out.absolute()
    survey = Survey.of(source)
    asked = _asked(survey, config, options)
    with only_one(out):
        if (out / MARK).exists():
            remove_work(out / WORK)  # if the one that finished was killed before it did
            return _finished(out, asked)
        work = out / WORK
        expected = survey.forecast(config, out).check(written=_bytes_in(work))
        plan = agree(work, _plan(asked, expected, options))
        run = _Run(source=str(source), survey=survey, out=out, config=config, plan=plan,
                   options=replace(options, now=datetime.fromisoformat(plan["now"])),
                   progress=progress, where=where)  # fmt: skip
        run.all()
        return Prepared.load(out)


def _asked(survey: Survey, config: PrepareConfig, options: ReadOptions) -> dict[str, Any]:
    """Everything that the result depends on, as JSON."""
    reading = {k: v for k, v in asdict(options).items() if k not in ("now", "limits")}
    return {
        "files": survey.identity(),
        "level": config.level,
        "max_history": config.max_history,
        **{f"read.{name}": value for name, value in reading.items()},
        **{f"limits.{name}": value for name, value in asdict(options.limits).items()},
    }


def _plan(asked: Mapping[str, Any], expected: Forecast, options: ReadOptions) -> dict[str, Any]:
    now = options.now or datetime.now(UTC)
    return {
        "asked": {**asked, "polars": pl.__version__},  # whose hash decides the buckets
        "batch_rows": expected.batch_rows,
        "buckets": expected.buckets,
        "now": now.isoformat(),
    }


def _finished(out: Path, asked: Mapping[str, Any]) -> Prepared:
    found = Prepared.load(out)
    known = found.facts["asked"]
    for name in sorted({*known, *asked}):
        if known.get(name) != asked.get(name):
            raise ConfigError(
                f"{out} holds a log that was prepared with {name} = {known.get(name)!r}; now it is "
                f"{asked.get(name)!r}. Give another --out, or remove the folder."
            )
    return found


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Run:
    """One preparation, from its first missing piece on."""

    source: str
    survey: Survey
    out: Path
    config: PrepareConfig
    options: ReadOptions
    plan: Mapping[str, Any]
    progress: Progress
    where: EncodesBuckets | None

    def all(self) -> None:
        """Do what is left to do."""
        work, buckets = self.out / WORK, int(self.plan["buckets"])
        batches, encoded = Pieces(work / "batches"), Pieces(work / "buckets")
        scattered, books = scatter(
            self.survey, self.options, batches, level=self.config.level,
            batch_rows=int(self.plan["batch_rows"]), buckets=buckets, progress=self.progress,
        )  # fmt: skip
        self._refuse_changed()
        self._refuse_level(scattered)
        if scattered.rows_in == scattered.rejected:
            self._refuse_empty(batches, scattered)
        basket_kind, notes = baskets_of(scattered.columns, scattered.time_kind, self.options)
        pairs = pairs_of(batches, scattered.num_batches)
        entries = Entries.of(books, pairs, self.config.level)
        encoding = Encoding(
            scattered=scattered, entries=entries, options=self.options, basket_kind=basket_kind,
            max_history=self.config.max_history,
        )  # fmt: skip
        encode_buckets(
            batches, encoded, encoding, buckets=buckets, progress=self.progress, where=self.where
        )
        found = [facts_of(encoded, bucket) for bucket in range(buckets)]
        sums = {name: sum(facts[name] for facts in found) for name in _SUMS}
        if not sums["purchases"]:
            raise EmptyDataError(
                f"0 purchases at the level {self.config.level}: all {sums['rows']} rows lack a "
                f"{LEVEL_COLUMNS[self.config.level]}."
            )
        catalog, indices = build_catalog(encoded, entries, buckets=buckets, progress=self.progress)
        catalog.save(self.out / CATALOG)
        sync(self.out / CATALOG)
        gather(
            encoded, order_users(encoded, buckets=buckets), indices, self.out / HISTORIES,
            buckets=buckets, time_kind=scattered.time_kind, journal=work / "gather.json",
            progress=self.progress,
        )  # fmt: skip
        self._write_rejects(batches, scattered)
        guesses = [*scattered.guesses, *notes]
        self._finish(scattered, sums, basket_kind, guesses)
        remove_work(work)

    def _finish(
        self, scattered: Scattered, sums: Mapping[str, int], basket_kind: str, guesses: list[str]
    ) -> None:
        finish(
            self.out,
            counts=RowCounts(
                rows_in=scattered.rows_in, kept=sums["rows"] - sums["duplicates"],
                rejected=scattered.rejected, duplicates=sums["duplicates"],
            ),
            encoded={
                "num_merged": sums["merged"], "num_capped": sums["capped"],
                "num_capped_users": sums["capped_users"], "num_left_out": sums["left_out"],
            },
            facts={
                "source": self.source, "users": sums["users"], "purchases": sums["purchases"],
                "columns": list(scattered.columns), "time_kind": scattered.time_kind,
                "basket_kind": basket_kind, "guesses": guesses, "level": self.config.level,
                "asked": {k: v for k, v in self.plan["asked"].items() if k != "polars"},
            },
        )  # fmt: skip

    def _refuse_changed(self) -> None:
        now = Survey.of(self.source)
        if now.identity() != self.survey.identity():
            raise ConfigError(
                f"{self.source} changed while it was read. Remove {self.out} and prepare it again "
                "when nobody writes to it."
            )

    def _refuse_level(self, scattered: Scattered) -> None:
        column = LEVEL_COLUMNS[self.config.level]
        if column not in scattered.columns:
            raise ColumnError(
                f"The log has no column {column}, which the level {self.config.level} needs; it "
                f"has {list(scattered.columns)}. Name the column, or use --level item."
            )

    def _refuse_empty(self, batches: Pieces, scattered: Scattered) -> None:
        some = rejects_of(batches, 0)
        rejects = pl.DataFrame(schema=REJECT_SCHEMA) if some is None else some
        counts = RowCounts(rows_in=scattered.rows_in, kept=0, rejected=scattered.rejected)
        raise EmptyDataError(why_empty(self.source, counts, rejects))

    def _write_rejects(self, batches: Pieces, scattered: Scattered) -> None:
        """All rejected rows as CSV; an empty table if there are none."""
        path = self.out / REJECTS
        with path.open("wb") as file:
            pl.DataFrame(schema=REJECT_SCHEMA).write_csv(file)
            for number in range(scattered.num_batches):
                rejects = rejects_of(batches, number)
                if rejects is not None:
                    rejects.write_csv(file, include_header=False)
        sync(path)


def facts_as_json(prepared: Prepared) -> dict[str, Any]:
    """What a person or program wants to know of a prepared log."""
    facts = {name: prepared.facts[name] for name in _TOLD}
    return {"folder": str(prepared.folder), "items": len(prepared.encoded.catalog), **facts}


def write_prepared_rejects(prepared: Prepared, path: Path) -> None:
    """Copy the rejected rows, as `write_rejects` writes those of a log in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(prepared.folder / REJECTS, path)
