"""nextbuy: from a log of purchases, what each customer buys next and where."""

__version__ = "0.1.0"
