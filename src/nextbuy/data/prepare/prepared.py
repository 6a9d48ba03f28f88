"""A prepared log on disk: catalog, histories to map, and the account of the rows."""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, cast

import polars as pl

from nextbuy.data.catalog import Catalog, Level
from nextbuy.data.encoding import Encoded
from nextbuy.data.histories import Histories
from nextbuy.data.purchases import BasketKind, Purchases, RowCounts
from nextbuy.errors import ConfigError, DamagedError
from nextbuy.storage import read_json, sync, write_json
from nextbuy.threads import in_threads

FORMAT: Final = 1
MARK: Final = "prepared.json"
HISTORIES: Final = "histories"
CATALOG: Final = "catalog.parquet"
REJECTS: Final = "rejects.csv"

_COUNTS: Final = ("num_merged", "num_capped", "num_capped_users", "num_left_out")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Prepared:
    """What a prepared folder holds.

    Attributes:
        folder: Where it lies.
        encoded: Catalog and histories; their arrays are mapped, not read.
        purchases: The account of the rows. Its frame is empty: the rows are in the histories.
        fingerprint: SHA-256 of what the histories hold, in hex. Another one than that of the same
            rows in one table, which would have to be sorted as a whole.
        facts: As `prepared.json` has them.
    """

    folder: Path
    encoded: Encoded
    purchases: Purchases
    fingerprint: str
    facts: Mapping[str, Any]

    @property
    def level(self) -> Level:
        """What an item is."""
        return self.encoded.catalog.level

    @property
    def read_facts(self) -> dict[str, Any]:
        """The options that the log was read with, as JSON; not its limits."""
        told = self.facts["asked"].items()
        return {k.removeprefix("read."): value for k, value in told if k.startswith("read.")}

    def at_level(self, level: Level) -> Encoded:
        """Catalog and histories, if this is the level that they were prepared for.

        Raises:
            ConfigError: If it is not.
        """
        if level != self.level:
            raise ConfigError(
                f"{self.folder} was prepared with --level {self.level}, asked is --level {level}. "
                f"Prepare the log again with --level {level}."
            )
        return self.encoded

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map what `prepare` wrote; reads little more than catalog and user ids.

        Raises:
            DamagedError: If a file is missing or of another size than was written.
        """
        facts = read_json(folder / MARK)
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise DamagedError(f"{folder / MARK} is no account of a prepared log of this version.")
        for name, entry in facts["files"].items():
            path = folder / name
            size = path.stat().st_size if path.is_file() else -1
            if size != entry["size"]:
                found = "is missing" if size < 0 else f"has {size} bytes"
                raise DamagedError(
                    f"{path} {found}; {entry['size']} bytes were written. Prepare the log again."
                )
        rows = facts["rows"]
        return cls(
            folder=folder,
            encoded=Encoded(
                catalog=Catalog.load(folder / CATALOG),
                histories=Histories.load(folder / HISTORIES),
                **{name: facts[name] for name in _COUNTS},
            ),
            purchases=Purchases(
                frame=pl.DataFrame(schema=dict.fromkeys(facts["columns"], pl.String)),
                counts=RowCounts(
                    rows_in=rows["in"], kept=rows["kept"], rejected=rows["rejected"],
                    duplicates=rows["duplicates"],
                ),
                time_kind=facts["time_kind"],
                basket_kind=cast("BasketKind", facts["basket_kind"]),
                guesses=tuple(facts["guesses"]),
            ),
            fingerprint=facts["fingerprint"],
            facts=facts,
        )  # fmt: skip

    def verify(self) -> None:
        """Read everything and compare it with what was written.

        Raises:
            DamagedError: Naming the first file that was changed.
        """
        for name, entry in self.facts["files"].items():
            if _sha256(self.folder / name) != entry["sha256"]:
                raise DamagedError(f"{self.folder / name} was changed: its SHA-256 is another.")


def is_prepared(source: object) -> bool:
    """Whether a source is a folder that `prepare` has finished."""
    if not isinstance(source, str | Path):
        return False
    try:
        return (Path(source) / MARK).is_file()
    except (OSError, ValueError):
        return False


def finish(
    folder: Path,
    *,
    counts: RowCounts,
    encoded: Mapping[str, int],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the account of a prepared log, which makes the folder one.

    Args:
        folder: With catalog, histories and perhaps rejects, on disk.
        counts: Of the rows.
        encoded: Counts of `Encoded`.
        facts: More to keep.
    """
    names = [CATALOG, *(f"{HISTORIES}/{path.name}" for path in (folder / HISTORIES).iterdir())]
    names = sorted(names)
    hashes = in_threads(lambda name: _sha256(folder / name), names)
    files = {
        name: {"size": (folder / name).stat().st_size, "sha256": digest}
        for name, digest in zip(names, hashes, strict=True)
    }
    digest = hashlib.sha256("".join(f"{n} {f['sha256']}\n" for n, f in files.items()).encode())
    account = {
        "format": FORMAT,
        "files": files,
        "fingerprint": digest.hexdigest(),
        "rows": {
            "in": counts.rows_in, "kept": counts.kept, "rejected": counts.rejected,
            "duplicates": counts.duplicates,
        },
        **encoded,
        **facts,
    }  # fmt: skip
    temporary = folder / f"tmp-{MARK}"
    write_json(temporary, account)
    temporary.rename(folder / MARK)
    sync(folder)
    return account


def remove_work(work: Path) -> None:
    """Remove what only an unfinished preparation needs."""
    shutil.rmtree(work, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
