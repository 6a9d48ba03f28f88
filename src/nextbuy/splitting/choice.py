"""A split by its name, as `--split` says it."""

from typing import Literal, get_args

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories
from nextbuy.errors import ConfigError
from nextbuy.splitting.cases import Split
from nextbuy.splitting.held_out_users import hold_out_users
from nextbuy.splitting.leave_last_out import leave_last_out
from nextbuy.splitting.temporal import Moment, split_by_time

SplitName = Literal["temporal", "leave-last-out", "held-out-users"]


def choose_split(
    name: str,
    catalog: Catalog,
    histories: Histories,
    *,
    seed: int = 0,
    test_start: Moment | None = None,
    validation_start: Moment | None = None,
    test_days: float | None = None,
    include_new_users: bool = False,
) -> Split:
    """The split called `temporal`, `leave-last-out` or `held-out-users`.

    Args:
        name: Which.
        catalog: Of the whole log.
        histories: Of the whole log.
        seed: Draws the users of `held-out-users`; the others draw nothing.
        test_start: For `temporal`, as are the following.
        validation_start: See `split_by_time`.
        test_days: See `split_by_time`.
        include_new_users: See `split_by_time`.

    Raises:
        ConfigError: If there is no such split, or cut-offs are given to one that has none.
        SplitError: If the log does not allow it.
    """
    if name == "temporal":
        return split_by_time(
            catalog,
            histories,
            test_start=test_start,
            validation_start=validation_start,
            test_days=test_days,
            include_new_users=include_new_users,
        )
    if name not in get_args(SplitName):
        raise ConfigError(
            f"There is no split {name!r}. Choose from: {', '.join(get_args(SplitName))}."
        )
    if (test_start, validation_start, test_days) != (None, None, None):
        raise ConfigError(
            f"The split {name} has no cut-offs, but test_start={test_start}, validation_start="
            f"{validation_start}, test_days={test_days} were given. Choose --split temporal."
        )
    if name == "leave-last-out":
        return leave_last_out(catalog, histories)
    return hold_out_users(catalog, histories, seed=seed)
