"""Tables into files: Parquet as they are, CSV such that a spreadsheet runs nothing of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from nextbuy.errors import ConfigError, DamagedError

if TYPE_CHECKING:
    import polars as pl

_FORMULA: Final = r"^([=+\-@\t\r])"
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
    import polars.selectors as cs

    check_format(path)
    beside = path.with_name(f".{path.name}.part")
    try:
        if path.suffix.lower() == ".csv":
            safe = table.with_columns(
                cs.string().str.replace(_FORMULA, "'$1"),
                cs.datetime().dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"),
            )
            safe.write_csv(beside)
        else:
            table.write_parquet(beside)
        beside.replace(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        beside.unlink(missing_ok=True)
        raise DamagedError(f"{path} cannot be written: {error}") from error
