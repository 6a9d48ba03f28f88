"""What a customer is worth over a time to come, in money of today.

Legend: U users, S steps.
"""

from typing import Final

import numpy as np

from nextbuy.timing.events import Float64
from nextbuy.timing.protocol import Outlook

_STEP_DAYS: Final = 92.0
_DAYS_PER_YEAR: Final = 365.25


def lifetime_value(outlook: Outlook, value_U: Float64, days: float, discount: float) -> Float64:
    """Expected spend within `days`, each purchase discounted to today, [U].

        value * sum over steps s of (E(t_s) - E(t_(s - 1))) / (1 + discount)^((t_(s - 1) + t_s) / 2)

    with E(t) the expected purchases within t (in years there), in equal steps of a quarter of a
    year at most. Purchases count as in the middle of their step, which for purchases at a constant
    rate is off by less than 1 in 10,000 at 10 % a year.

    Args:
        outlook: Of U users.
        value_U: Expected value of a purchase.
        days: Of the time to come, above 0.
        discount: A year: 0.1 says that 110 in a year are worth 100 today.
    """
    num_steps = int(np.ceil(days / _STEP_DAYS))
    ends_S = days * np.arange(1, num_steps + 1) / num_steps
    purchases_US = np.diff(outlook.expected_purchases(ends_S), axis=1, prepend=0.0)
    middle_S = (ends_S - 0.5 * days / num_steps) / _DAYS_PER_YEAR
    return np.asarray(value_U * (purchases_US @ (1.0 + discount) ** -middle_S))
