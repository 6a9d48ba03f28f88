"""What of a model's config is worth looking for, declared beside the config that it is about."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Value = float | int | str | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """All numbers from `low` to `high`, both included; whole ones if both are.

    Attributes:
        low: The lowest.
        high: The highest.
        log: Whether a factor counts, not a difference.
    """

    low: float
    high: float
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def including(self, value: Any) -> "Range":
        """The same, made wider where it does not hold a value."""
        return replace(self, low=min(self.low, value), high=max(self.high, value))


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values."""

    values: tuple[Value, ...]

    def including(self, value: Any) -> "Choice":
        """The same, with a value that it lacks."""
        return self if value in self.values else Choice((*self.values, value))


SearchSpace = Mapping[str, Range | Choice]
"""By the path of a field, such as `training.learning_rate`."""


def value_at(config: Any, path: str) -> Any:
    """The value of a config at a path."""
    for name in path.split("."):
        config = getattr(config, name)
    return config


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by their paths, as a config takes them: `{"a.b": 1}` is `{"a": {"b": 1}}`."""
    found: dict[str, Any] = {}
    for path, value in values.items():
        *rooms, name = path.split(".")
        place = found
        for room in rooms:
            place = place.setdefault(room, {})
        place[name] = value
    return found
