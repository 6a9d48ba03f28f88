"""The steps that bring a store to the newest version: numbered SQL files, forward only."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from nextbuy.errors import StoreError

_NAME: Final = re.compile(r"(\d{4})_[a-z_]+\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: the version that it leads to, and its statements."""

    version: int
    sql: str


def migrations_of(dialect: Literal["sqlite", "postgres"]) -> list[Migration]:
    """All steps, version 1 first.

    Raises:
        StoreError: If the files are not numbered 1, 2, ...; the package is not whole then.
    """
    found: list[Migration] = []
    for path in sorted((Path(__file__).parent / dialect).glob("*.sql")):
        named = _NAME.fullmatch(path.name)
        if named is None or int(named[1]) != len(found) + 1:
            raise StoreError(
                f"{path} is not the migration {len(found) + 1:04d}. Install nextbuy anew."
            )
        found.append(Migration(int(named[1]), path.read_text(encoding="utf-8")))
    if not found:
        raise StoreError(f"There are no migrations for {dialect}. Install nextbuy anew.")
    return found


def missing_steps(version: int, steps: Sequence[Migration], place: str) -> Sequence[Migration]:
    """The steps that a store of a version lacks.

    Raises:
        StoreError: If the store is of a version that this nextbuy does not know.
    """
    newest = steps[-1].version
    if version > newest:
        raise StoreError(
            f"{place} is a store of version {version}; this nextbuy knows versions up to {newest}. "
            f"Install a newer nextbuy, or restore a backup of version {newest} or below."
        )
    return steps[max(version, 0) :]
