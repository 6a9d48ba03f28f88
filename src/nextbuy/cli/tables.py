"""Tables into files: Parquet as they are, CSV such that a spreadsheet runs nothing of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from nextbuy.errors import ConfigError, DamagedError

if TYPE_CHECKING:
    import polars as pl

_FORMATS: Final = (".csv", ".parquet")


def check_format(path: Path) -> None:
    """Refuse a file that could not be written, before anything is computed.

    Raises:
        ConfigError: If its name ends in neither `.csv` nor `.parquet`, or its folder is not there.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(f"--out {path} is neither a .csv nor a .parquet file.")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--out {path} lies in a folder that is not there. Make it first.")


def write_table(table: "pl.DataFrame", path: Path) -> None:
    """Write a table in the format of the file's name, whole or not at all.

    In CSV a text that a spreadsheet would take for a formula (it begins with `=`, `+`, `-`, `@`, a
    tab or a carriage return) gets an apostrophe before it; Parquet has every id byte for byte.

    Raises:
        DamagedError: If the disk refuses.
    """
    import polars as pl

    from nextbuy.data.spreadsheets import safe_for_spreadsheets

    check_format(path)
    beside = path.with_name(f".{path.name}.part")
    try:
        if path.suffix.lower() == ".csv":
            safe_for_spreadsheets(table).write_csv(beside)
        else:
            table.write_parquet(beside)
        beside.replace(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        beside.unlink(missing_ok=True)
        raise DamagedError(f"{path} cannot be written: {error}") from error


def read_ids(path: Path) -> frozenset[str]:
    """User ids of a file: the column `user_id` of CSV or Parquet, else one a line.

    An apostrophe that `write_table` put before an id is taken off again; the id with it counts too.

    Raises:
        ConfigError: If the file is not there, cannot be read or has no such column.
    """
    import polars as pl

    from nextbuy import columns
    from nextbuy.data.spreadsheets import without_apostrophes

    try:
        if path.suffix.lower() == ".parquet":
            ids = pl.read_parquet(path)[columns.USER].cast(pl.String)
        elif path.suffix.lower() == ".csv":
            ids = pl.read_csv(path, infer_schema=False)[columns.USER]
        else:
            lines = path.read_text(encoding="utf-8").splitlines()
            ids = pl.Series([line for line in lines if line], dtype=pl.String)
    except (OSError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"User ids cannot be read from {path}: {error}") from error
    return frozenset(pl.concat([ids, without_apostrophes(ids)]).drop_nulls())
