"""Purchases from a database, through SQLAlchemy: streamed, nothing of a half result kept."""

import difflib
import re
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import polars as pl

from nextbuy.data.formats.table import Part, RawTable, numbered_rows
from nextbuy.data.options import ReadOptions
from nextbuy.data.recognition import recognise
from nextbuy.errors import ColumnError, ConfigError, MissingExtraError, UnreadableFileError
from nextbuy.progress import Progress

_CHUNK = 50_000
_QUERY = re.compile(r"\s*(select|with|values)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SqlSource:
    """Where purchases lie in a database.

    Attributes:
        url: As SQLAlchemy takes it, such as `sqlite:///shop.db`. The password is never shown.
        query: A SELECT, or the name of a table or view, perhaps with its schema: `shop.orders`.
    """

    url: str
    query: str

    def __post_init__(self) -> None:
        if not self.query.strip():
            raise ConfigError("The query is empty. Give a SELECT or the name of a table.")


def read_sql(source: SqlSource, options: ReadOptions, progress: Progress) -> RawTable:
    """The needed columns as text, each value as it prints; NULL is null.

    Raises:
        MissingExtraError: If SQLAlchemy is not installed.
        UnreadableFileError: If the database or table cannot be reached, or the connection breaks;
            then nothing is kept.
        ColumnError: If a needed column is missing or doubled.
    """
    try:
        import sqlalchemy as sa
    except ImportError as error:
        raise MissingExtraError("sqlalchemy", "sql", "Reading from a database") from error
    label = _label(sa, source)
    progress.start("reading", 0)
    try:
        engine = sa.create_engine(source.url)
        try:
            with engine.connect() as connection:
                frame = _Reader(sa, connection, label, options).stream(source.query, progress)
        finally:
            engine.dispose()
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        cause = getattr(error, "orig", None) or error
        first = str(cause).split("\n", maxsplit=1)[0]
        raise UnreadableFileError(f"{label} cannot be read: {first}. Nothing was kept.") from error
    finally:
        progress.finish()
    return RawTable(
        frame=frame,
        parts=(Part(file=label, num_rows=frame.height, places=numbered_rows(frame)),),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Reader:
    """One open connection. Any: SQLAlchemy is optional, so its types cannot be named here."""

    sa: Any
    connection: Any
    label: str
    options: ReadOptions

    def stream(self, query: str, progress: Progress) -> pl.DataFrame:
        """The needed columns of a query or table, fetched in chunks by a server-side cursor."""
        statement = self.sa.text(query) if _QUERY.match(query) else self._table(query.strip())
        streamed = self.connection.execution_options(stream_results=True, yield_per=_CHUNK)
        result = streamed.execute(statement)
        names = [str(name) for name in result.keys()]  # noqa: SIM118  (a method of the result)
        doubled = [name for name in names if names.count(name) > 1]
        if doubled:
            raise ColumnError(
                f"{self.label} gives the column {doubled[0]!r} twice. Rename one with AS."
            )
        mapping, _ = recognise(self.label, names, self.options)
        wanted = [names.index(name) for name in mapping.values()]
        schema = dict.fromkeys(mapping.values(), pl.String)
        chunks = [pl.DataFrame(schema=schema)]
        for rows in result.partitions(_CHUNK):
            values = {names[i]: [_text(row[i], names[i]) for row in rows] for i in wanted}
            chunks.append(pl.DataFrame(values, schema=schema))
            progress.advance(len(rows), {})
        return pl.concat(chunks)

    def _table(self, name: str) -> Any:
        """A SELECT of the needed columns; names come from the database's catalogue, quoted."""
        sa, inspector = self.sa, self.sa.inspect(self.connection)
        known = _tables(inspector, None)
        schema, table = None, name
        if name not in known and "." in name:
            schema, _, table = name.rpartition(".")
            known = _tables(inspector, schema) if schema in inspector.get_schema_names() else []
        if table not in known:
            near = difflib.get_close_matches(table, known, n=1)
            hint = f" Nearest is {near[0]!r}." if near else ""
            raise UnreadableFileError(
                f"{self.label}: there is no table {name!r}; there are {sorted(known)[:20]}.{hint}"
            )
        columns = [str(column["name"]) for column in inspector.get_columns(table, schema)]
        mapping, _ = recognise(self.label, columns, self.options)
        chosen = [sa.column(sa.quoted_name(column, quote=True)) for column in mapping.values()]
        target = sa.table(sa.quoted_name(table, quote=True), *chosen, schema=schema)
        return sa.select(*target.columns)


def _tables(inspector: Any, schema: str | None) -> list[str]:
    return [*inspector.get_table_names(schema), *inspector.get_view_names(schema)]


def _label(sa: Any, source: SqlSource) -> str:
    try:
        url = sa.engine.make_url(source.url)
    except sa.exc.ArgumentError as error:
        raise ConfigError(
            "The database URL cannot be understood; it looks like postgresql://user@host/name."
        ) from error
    shown = source.query if len(source.query) <= 60 else source.query[:60] + "…"
    return f"{url.render_as_string(hide_password=True)} ({shown})"


def _text(value: object, name: str) -> str | None:
    """A value as text from which it can be understood again without loss."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError as error:
            raise ColumnError(f"The column {name!r} holds bytes that are not UTF-8.") from error
    return str(value).lower() if isinstance(value, bool) else str(value)
