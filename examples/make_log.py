"""Write a small grocery log with habits, so that a model has something to learn.

python examples/make_log.py PATH
"""

import csv
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

ITEMS = ["tea", "milk", "bread", "rice", "soap", "coffee", "sugar", "eggs", "apples", "pasta"]


def main() -> None:
    rng = np.random.default_rng(1)
    start = datetime(2025, 1, 1, tzinfo=UTC)
    with Path(sys.argv[1]).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["user_id", "item_id", "timestamp", "price", "quantity", "basket_id"])
        order = 0
        for user in range(1, 301):
            favourites = rng.choice(len(ITEMS), size=3, replace=False)
            day = float(rng.uniform(0, 10))
            while day < 180:
                order += 1
                bought = rng.choice(favourites, size=rng.integers(1, 4), replace=False)
                for item in {*bought.tolist(), *rng.integers(0, 10, size=1).tolist()}:
                    when = start + timedelta(days=day)
                    price = f"{1 + item * 0.75:.2f}"
                    table.writerow([f"u{user}", ITEMS[item], when.isoformat(), price, 1, order])
                day += float(rng.gamma(4.0, 3.0))
        table.writerow(["u1", "tea", "not a date", "1.00", 1, order + 1])  # will be rejected


if __name__ == "__main__":
    main()
