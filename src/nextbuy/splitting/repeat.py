"""The repeat policy: may what a user already bought be offered again?

Evaluation, prediction and service use the same one, stored in the bundle.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal, Protocol

import numpy as np

from nextbuy.data.histories import DAY, Float32, Histories, Int64
from nextbuy.errors import ConfigError

_OWN: Final = "cooldown:own"


class Clock(Protocol):
    """Knows when items are due again."""

    def not_due(self, histories: Histories, as_of: Int64) -> tuple[Int64, Int64]:
        """User positions and item indices, as pairs, of what is certainly too early."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatPolicy:
    """`allow` everything, `exclude` what was bought, or a `cooldown` after buying.

    Attributes:
        kind: Which of them; `own` is a cool-down until the early end of the item's own clock.
        days: Only for `cooldown`, above 0: an item bought less than so many days before the moment
            of asking is not offered; exactly so many days later it is.
        clock: Only for `own`: fitted on what lies before the questions.
    """

    kind: Literal["allow", "exclude", "cooldown", "own"] = "allow"
    days: float | None = None
    clock: Clock | None = None

    ALLOW: ClassVar["RepeatPolicy"]

    def __post_init__(self) -> None:
        if (self.kind == "cooldown") != (self.days is not None):
            raise ConfigError(f"Days belong to a cooldown only; got {self.kind!r}, {self.days}.")
        if self.days is not None and not 0 < self.days < float("inf"):
            raise ConfigError(f"A cooldown lasts some days, more than 0; got {self.days}.")

    @classmethod
    def parse(cls, text: str) -> "RepeatPolicy":
        """Read `allow`, `exclude`, `cooldown:DAYS` or `cooldown:own`.

        Raises:
            ConfigError: If it is none of them.
        """
        if text == "allow":
            return cls()
        if text == "exclude":
            return cls(kind="exclude")
        if text == _OWN:
            return cls(kind="own")
        kind, _, days = text.partition(":")
        if kind == "cooldown":
            try:
                return cls(kind="cooldown", days=float(days))
            except ValueError:
                pass
        raise ConfigError(
            "A repeat policy is allow, exclude, cooldown:DAYS (such as cooldown:30) or "
            f"{_OWN}; got {text!r}."
        )

    def __str__(self) -> str:
        if self.kind == "own":
            return _OWN
        return self.kind if self.days is None else f"cooldown:{self.days:g}"

    def by(self, clock: Clock | None) -> "RepeatPolicy":
        """The same policy with a clock, if it needs one."""
        return replace(self, clock=clock) if self.kind == "own" else self

    def blocks(self, histories: Histories, as_of: Int64 | None) -> "Blocked":
        """What may not be offered, as pairs of user position and item index.

        Raises:
            ConfigError: If a cooldown is asked of a log whose time is only an order, or one by
                own clocks without a clock.
        """
        if self.kind == "allow":
            return Blocked(users=np.empty(0, np.int64), items=np.empty(0, np.int64))
        users, items = histories.owners, histories.items.astype(np.int64)
        if self.kind == "exclude":
            return Blocked(users=users, items=items)
        if as_of is None or histories.time_kind != "dates":
            raise ConfigError(
                f"{self} needs dates, but this log has only an order of purchases. "
                "Choose --repeat allow or exclude."
            )
        if self.days is not None:
            recent = as_of[users] - histories.times < round(self.days * DAY)
            return Blocked(users=users[recent], items=items[recent])
        if self.clock is None:
            raise ConfigError(
                f"{self} needs the clocks of items, and there are none: nobody bought an item on "
                "two days. Choose --repeat allow, exclude or cooldown:DAYS."
            )
        users, items = self.clock.not_due(histories, as_of)
        return Blocked(users=users, items=items)


RepeatPolicy.ALLOW = RepeatPolicy()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Blocked:
    """Pairs of user position and item index that may not be offered; pairs may repeat."""

    users: Int64
    items: Int64


def apply_repeat_policy(
    log_probabilities: Float32, histories: Histories, as_of: Int64 | None, policy: RepeatPolicy
) -> Float32:
    """The distribution given that only allowed items are bought: P(i) / sum of allowed P.

    Args:
        log_probabilities: Shape [users, V + 1]; left as it is.
        histories: What each of these users bought.
        as_of: The moment of asking, one a user.
        policy: Which items are allowed.

    Returns:
        The same shape; items that are not allowed are `-inf`. A user who may be offered nothing has
        a row of `-inf` only. Under `allow` the very array that was given.

    Raises:
        ConfigError: As `RepeatPolicy.blocks` does.
    """
    if policy.kind == "allow":
        return log_probabilities
    blocked = policy.blocks(histories, as_of)
    masked = log_probabilities.copy()
    masked[blocked.users, blocked.items] = -np.inf
    return scaled_to_one(masked)


def scaled_to_one(log_values: Float32) -> Float32:
    """Each row less the log of its sum, so that its exponentials sum to 1; changed in place.

    A row of `-inf` only stays.
    """
    best = log_values.max(axis=1, keepdims=True)
    best[np.isneginf(best)] = 0.0
    total = np.exp(log_values - best).sum(axis=1, keepdims=True, dtype=np.float64)
    total[total == 0.0] = 1.0
    log_values -= (best + np.log(total)).astype(np.float32)
    return log_values
