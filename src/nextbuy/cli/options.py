"""Flags that several commands share: the same words, the same help, everywhere."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from nextbuy.data.options import ReadOptions
    from nextbuy.data.sources import Source
    from nextbuy.splitting.rules import Rules

DATA_PANEL = "How to read the data"

Data = Annotated[
    str,
    typer.Argument(
        help="world:uniform, world:market, complete-journey, store:URL, a path, or an SQL URL."
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")
]
Seed = Annotated[int, typer.Option("--seed", help="The run's only source of randomness.")]
Users = Annotated[
    int | None, typer.Option("--users", min=1, help="Users of a world (default: the world's own).")
]
Epochs = Annotated[
    int | None, typer.Option("--epochs", min=1, help="Passes over the training histories.")
]
Level = Annotated[
    Literal["item", "category", "platform"],
    typer.Option("--level", help="What is predicted: items, categories or platforms."),
]
SplitChoice = Annotated[
    Literal["auto", "temporal", "leave-last-out", "held-out-users"],
    typer.Option("--split", help="How train, validation and test are told apart."),
]
Repeat = Annotated[
    str,
    typer.Option(
        "--repeat",
        help="Offer bought items again: allow, exclude, cooldown:DAYS, or cooldown:own, not before "
        "the item's own clock for this user has begun to be due.",
    ),
]
Preset = Annotated[
    Literal["fast", "balanced", "best"],
    typer.Option(
        "--preset", help="Which models: fast takes seconds, balanced minutes, best twice as many."
    ),
]
Models = Annotated[
    str | None,
    typer.Option(
        "--models",
        help="Comma-separated, instead of a preset; gru is in none, and lstm-rnn-tensorflow names "
        "an engine.",
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        "--time-limit",
        min=1,
        help="Seconds in all. Models that there is no time for are left out, and it says so.",
    ),
]
MemoryLimit = Annotated[
    float | None,
    typer.Option(
        "--memory-limit",
        min=1,
        help="MiB that the process may hold. Models that would take more are left out, and it "
        "says so.",
    ),
]
Refit = Annotated[
    bool,
    typer.Option(
        "--refit/--no-refit",
        help="Once all is chosen, fit again on everything before the test period.",
    ),
]
RefitFull = Annotated[
    bool,
    typer.Option("--refit-full", help="After scoring, fit again on the whole log to answer from."),
]
RulesFile = Annotated[
    Path | None,
    typer.Option(
        "--rules",
        help="A JSON file: allow, exclude, lowest_price, highest_price, per_category, "
        "per_platform, boost_items, boost_categories.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="A TOML file such as the best.toml of tune; flags that are given go before it.",
    ),
]
EngineChoice = Annotated[
    Literal["torch", "tensorflow"],
    typer.Option("--engine", help="What trains lstm-rnn; the result is the same kind of bundle."),
]
LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", help="Highest rate of the networks.")
]
Tokens = Annotated[
    int | None, typer.Option("--tokens", min=1, help="Positions in a batch of the networks.")
]
Dropout = Annotated[
    float | None, typer.Option("--dropout", min=0, max=0.95, help="Of the networks.")
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="Let workers of a Ray cluster do it: HOST:PORT of the one that this machine belongs "
        "to, auto for one that runs here, local for one of this machine alone.",
    ),
]
Workers = Annotated[
    int, typer.Option("--workers", min=1, help="Processes on the cluster; with --cluster only.")
]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda, for the networks.")]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="DATE",
        help="From when days count, such as 2025-03-01; default the end of the log.",
    ),
]
K = Annotated[int, typer.Option("--k", min=1, max=1000, help="Items a user.")]

UserColumn = Annotated[
    str | None, typer.Option("--user-column", rich_help_panel=DATA_PANEL, help="Who bought.")
]
ItemColumn = Annotated[
    str | None, typer.Option("--item-column", rich_help_panel=DATA_PANEL, help="What was bought.")
]
TimeColumn = Annotated[
    str | None, typer.Option("--time-column", rich_help_panel=DATA_PANEL, help="When.")
]
PlatformColumn = Annotated[
    str | None, typer.Option("--platform-column", rich_help_panel=DATA_PANEL, help="Where.")
]
CategoryColumn = Annotated[
    str | None, typer.Option("--category-column", rich_help_panel=DATA_PANEL, help="What kind.")
]
PriceColumn = Annotated[
    str | None, typer.Option("--price-column", rich_help_panel=DATA_PANEL, help="Price of a unit.")
]
QuantityColumn = Annotated[
    str | None, typer.Option("--quantity-column", rich_help_panel=DATA_PANEL, help="Units.")
]
BasketColumn = Annotated[
    str | None, typer.Option("--basket-column", rich_help_panel=DATA_PANEL, help="Order or visit.")
]
Time = Annotated[
    Literal["auto", "dates", "order"],
    typer.Option(
        "--time", rich_help_panel=DATA_PANEL, help="Timestamps are dates, or only an order."
    ),
]
Baskets = Annotated[
    Literal["auto", "column", "timestamp", "none"],
    typer.Option("--baskets", rich_help_panel=DATA_PANEL, help="What makes a basket."),
]
TimeFormat = Annotated[
    str | None,
    typer.Option("--time-format", rich_help_panel=DATA_PANEL, help="Such as %d/%m/%Y %H:%M."),
]
TimeZone = Annotated[
    str | None,
    typer.Option("--tz", rich_help_panel=DATA_PANEL, help="Zone of times that carry no offset."),
]
Encoding = Annotated[
    str | None, typer.Option("--encoding", rich_help_panel=DATA_PANEL, help="Of text files.")
]
Delimiter = Annotated[
    str | None, typer.Option("--delimiter", rich_help_panel=DATA_PANEL, help="Of text files.")
]
NoHeader = Annotated[
    bool, typer.Option("--no-header", rich_help_panel=DATA_PANEL, help="No line of column names.")
]
Duplicates = Annotated[
    Literal["keep", "drop"],
    typer.Option("--duplicates", rich_help_panel=DATA_PANEL, help="Rows equal in every column."),
]
Returns = Annotated[
    Literal["drop", "keep", "error"],
    typer.Option("--returns", rich_help_panel=DATA_PANEL, help="Prices or quantities below 1."),
]
NormalizeIds = Annotated[
    Literal["none", "nfc"],
    typer.Option("--normalize-ids", rich_help_panel=DATA_PANEL, help="Unicode form of ids."),
]
SqlQuery = Annotated[
    str | None,
    typer.Option("--query", rich_help_panel=DATA_PANEL, help="SQL query, when DATA is an SQL URL."),
]
Rejects = Annotated[
    Path | None,
    typer.Option("--rejects", rich_help_panel=DATA_PANEL, help="Write rejected rows to this CSV."),
]


def reads_data(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all flags that say how data are read, as one argument `read`.

    The command takes `read: DataFlags`; on the command line that is every flag below, so that each
    is written once and is the same word in every command.
    """

    @functools.wraps(command)
    def with_flags(**arguments: Any) -> None:
        flags = {name: arguments.pop(name) for name in _READ_FLAGS}
        command(read=DataFlags(**flags), **arguments)

    signature = inspect.signature(command)
    own = [p for name, p in signature.parameters.items() if name != "read"]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in _READ_FLAGS.items()
    ]
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    with_flags.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*own, *added]
    )
    with_flags.__annotations__ = {p.name: p.annotation for p in [*own, *added]}
    return with_flags


_READ_FLAGS: dict[str, tuple[Any, Any]] = {
    "user_column": (UserColumn, None),
    "item_column": (ItemColumn, None),
    "time_column": (TimeColumn, None),
    "platform_column": (PlatformColumn, None),
    "category_column": (CategoryColumn, None),
    "price_column": (PriceColumn, None),
    "quantity_column": (QuantityColumn, None),
    "basket_column": (BasketColumn, None),
    "time": (Time, "auto"),
    "baskets": (Baskets, "auto"),
    "time_format": (TimeFormat, None),
    "time_zone": (TimeZone, None),
    "encoding": (Encoding, None),
    "delimiter": (Delimiter, None),
    "no_header": (NoHeader, False),
    "duplicates": (Duplicates, "keep"),
    "returns": (Returns, "drop"),
    "normalize_ids": (NormalizeIds, "none"),
    "query": (SqlQuery, None),
    "rejects": (Rejects, None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFlags:
    """The values of the flags that `reads_data` adds."""

    user_column: str | None = None
    item_column: str | None = None
    time_column: str | None = None
    platform_column: str | None = None
    category_column: str | None = None
    price_column: str | None = None
    quantity_column: str | None = None
    basket_column: str | None = None
    time: Literal["auto", "dates", "order"] = "auto"
    baskets: Literal["auto", "column", "timestamp", "none"] = "auto"
    time_format: str | None = None
    time_zone: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    no_header: bool = False
    duplicates: Literal["keep", "drop"] = "keep"
    returns: Literal["drop", "keep", "error"] = "drop"
    normalize_ids: Literal["none", "nfc"] = "none"
    query: str | None = None
    rejects: Path | None = None

    def options(self) -> "ReadOptions":
        """As the library takes them."""
        from nextbuy.data.options import ReadOptions

        own = {"no_header", "query", "rejects"}
        same = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in own}
        return ReadOptions(header=not self.no_header, **same)

    def any_given(self) -> bool:
        """Whether the user said anything about how to read."""
        return self.options() != DataFlags().options()

    def source(self, data: str) -> Any:
        """What to read: the data as named, the purchases of a store that is named `store:URL`, or
        an SQL source when there is a query."""
        if data.startswith("store:"):
            from nextbuy.service.store.log import read_store

            return read_store(data.removeprefix("store:"))
        if self.query is None:
            return data
        from nextbuy.data.formats.sql import SqlSource

        return SqlSource(url=data, query=self.query)

    def file_source(self, data: str) -> str:
        """The data, where a command reads nothing but files.

        Raises:
            ConfigError: If they are a world, a store or a database.
        """
        from nextbuy.errors import ConfigError

        if self.query is not None or data.startswith(("store:", "world:")) or "://" in data:
            raise ConfigError(
                f"{data} is no file, folder or glob. Write it as Parquet or CSV first, or give it "
                "to: nextbuy train"
            )
        return data

    def write_rejects(self, source: "Source | None") -> None:
        """Write the rejected rows to the file that was asked for."""
        if source is None or self.rejects is None:
            return
        from nextbuy.data.prepare.preparing import write_prepared_rejects
        from nextbuy.data.reading import write_rejects

        if source.prepared is not None:
            write_prepared_rejects(source.prepared, self.rejects)
            return
        write_rejects(source.purchases, self.rejects)


def read_rules(path: Path | None) -> "Rules | None":
    """The rules of a file; None without one.

    Raises:
        DamagedError: If it is not there or no JSON.
        ConfigError: If it holds something else.
    """
    if path is None:
        return None
    from nextbuy.splitting.rules import Rules
    from nextbuy.storage import read_json

    return Rules.of(read_json(path))


def moment_of(text: str | None) -> datetime | None:
    """The moment of `--as-of`; None where it was not given.

    Raises:
        ConfigError: If it is no date.
    """
    from nextbuy.errors import ConfigError

    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"--as-of {text!r} is no date; write it as 2025-03-01 or 2025-03-01T12:00:00+00:00."
        ) from error
