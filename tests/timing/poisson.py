"""Users who buy at random, each at a rate of their own: what is true of them is known by hand."""

import numpy as np

from nextbuy.timing.protocol import Outlook, horizons


class PoissonOutlook(Outlook):
    """Rates are purchases a day."""

    def __init__(self, rates):
        self.rates = np.asarray(rates, dtype=np.float64)

    def __len__(self):
        return len(self.rates)

    def take(self, users):
        return PoissonOutlook(self.rates[users])

    def log_survival(self, days):
        return -self.rates[:, None] * days

    def log_density(self, days):
        return np.log(self.rates)[:, None] - self.rates[:, None] * days

    def expected_purchases(self, days):
        return self.rates[:, None] * horizons(days)

    def p_active(self):
        return np.ones(len(self.rates))
