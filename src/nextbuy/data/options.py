"""How a log is to be read: every choice that a user can make, checked when it is made."""

import codecs
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Final, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from nextbuy import columns
from nextbuy.data.histories import TimeKind
from nextbuy.data.purchases import BasketKind
from nextbuy.errors import ConfigError

TimeChoice = Literal["auto"] | TimeKind
BasketChoice = Literal["auto"] | BasketKind
DuplicateChoice = Literal["keep", "drop"]
ReturnChoice = Literal["drop", "keep", "error"]
BadNumberChoice = Literal["reject", "null"]
SpaceChoice = Literal["strip", "keep"]
NormalChoice = Literal["none", "nfc"]

_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "time": ("auto", "dates", "order"),
    "baskets": ("auto", "column", "timestamp", "none"),
    "duplicates": get_args(DuplicateChoice),
    "returns": get_args(ReturnChoice),
    "bad_numbers": get_args(BadNumberChoice),
    "spaces": get_args(SpaceChoice),
    "normalize_ids": get_args(NormalChoice),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What no honest log exceeds; a row or file beyond it is refused.

    Attributes:
        id_bytes: Longest id, in UTF-8 bytes.
        line_bytes: Longest line of a text file.
        ratio: Decompressed bytes per compressed byte, looked at past `ratio_floor_bytes`.
        ratio_floor_bytes: A file that unpacks to less is never called a bomb.
        unpacked_bytes: Most bytes that a compressed file may unpack to.
    """

    id_bytes: int = 256
    line_bytes: int = 1 << 20
    ratio: int = 100
    ratio_floor_bytes: int = 16 << 20
    unpacked_bytes: int = 16 << 30

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"The limit {limit.name} is {value!r}; it must be at least 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How to read a log. None means: recognise it, and say so in `Purchases.guesses`.

    Attributes:
        user_column: Name of the column with the user ids; the other `*_column` likewise.
        encoding: Of text files, a Python codec name; None is UTF-8, or what a byte order mark says.
        delimiter: One character between the fields of a text file.
        decimal: `.` or `,` in prices and quantities.
        header: Whether text files begin with a line of column names. Without it the columns are
            `column_1`, `column_2`, ...: user, item, time unless told.
        time_format: `strptime` format of text timestamps.
        time_zone: IANA zone of timestamps that carry no offset; None is UTC.
        time: `dates`, only an `order`, or `auto`.
        baskets: What makes a basket: a column, equal timestamps, nothing, or `auto`.
        duplicates: `drop` keeps the first of rows that are equal in every known column.
        returns: What happens to a price or quantity of zero or below.
        bad_numbers: A price or quantity that is no finite number rejects its row, or becomes null.
        spaces: Spaces and tabs around ids are cut off, or belong to the id.
        normalize_ids: `nfc` makes ids that look the same but differ in Unicode composition equal.
        now: The present, for tests; timestamps more than a day later are rejected.
        limits: Sizes beyond which a row or file is refused.
    """

    user_column: str | None = None
    item_column: str | None = None
    time_column: str | None = None
    platform_column: str | None = None
    category_column: str | None = None
    price_column: str | None = None
    quantity_column: str | None = None
    basket_column: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    decimal: Literal[".", ","] | None = None
    header: bool = True
    time_format: str | None = None
    time_zone: str | None = None
    time: TimeChoice = "auto"
    baskets: BasketChoice = "auto"
    duplicates: DuplicateChoice = "keep"
    returns: ReturnChoice = "drop"
    bad_numbers: BadNumberChoice = "reject"
    spaces: SpaceChoice = "strip"
    normalize_ids: NormalChoice = "none"
    now: datetime | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}."
                )
        if self.decimal not in (None, ".", ","):
            raise ConfigError(f"decimal is {self.decimal!r}; choose . or ,")
        if self.delimiter is not None and (
            len(self.delimiter.encode()) != 1 or self.delimiter in '"\r\n'
        ):
            raise ConfigError(
                f"delimiter is {self.delimiter!r}; it must be one ASCII character "
                "other than a quote or a line break."
            )
        if self.now is not None and self.now.tzinfo is None:
            raise ConfigError(f"now is {self.now}, without a time zone; add one, such as UTC.")
        _check_names(self.encoding, self.time_zone)

    @property
    def mapping(self) -> dict[str, str | None]:
        """The told name of each contract column, None where it is to be recognised."""
        return {
            columns.USER: self.user_column,
            columns.ITEM: self.item_column,
            columns.TIME: self.time_column,
            columns.PLATFORM: self.platform_column,
            columns.CATEGORY: self.category_column,
            columns.PRICE: self.price_column,
            columns.QUANTITY: self.quantity_column,
            columns.BASKET: self.basket_column,
        }


def _check_names(encoding: str | None, time_zone: str | None) -> None:
    if encoding is not None:
        try:
            known = codecs.lookup(encoding)
        except LookupError as error:
            raise ConfigError(
                f"encoding {encoding!r} is not known; try cp1252 or utf-16."
            ) from error
        if not known._is_text_encoding:  # codecs such as zip and hex are no encodings of text
            raise ConfigError(f"encoding {encoding!r} is not an encoding of text.")
    if time_zone is not None:
        try:
            ZoneInfo(time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(
                f"time_zone {time_zone!r} is not known; use a name such as Asia/Kolkata or UTC."
            ) from error
