"""Small files for the tests of reading."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from nextbuy.data.reading import ReadOptions, read_purchases

NOW = datetime(2025, 6, 1, tzinfo=UTC)
HEADER = "user_id,item_id,timestamp\n"


def options(**told):
    return ReadOptions(**{"now": NOW, **told})


def written(folder: Path, content: str | bytes, name: str = "log.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(folder: Path, content: str | bytes, name: str = "log.csv", **told):
    return read_purchases(written(folder, content, name), options(**told))


def ids(purchases, column="item_id"):
    return purchases.frame[column].to_list()


def rejected(purchases):
    """Line, column and reason of every reject."""
    return purchases.rejects.select("line", "column", "reason").rows()


def database(folder, rows, columns="user_id, item_id, timestamp", table="purchases"):
    path = folder / "shop.db"
    connection = sqlite3.connect(path)
    connection.execute(f"CREATE TABLE {table} ({columns})")
    marks = ",".join("?" * len(columns.split(",")))
    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608
    connection.commit()
    connection.close()
    return f"sqlite:///{path}"
