"""The transformer for `peers.py`, in a process of its own as its peers have.

    python benchmarks/peer_nextbuy.py FOLDER LONGEST EPOCHS SAMPLES
    python benchmarks/peer_nextbuy.py FOLDER LONGEST each

The first fits for so many epochs, on so many shared samples or (0) on the whole catalog. The second
trains with the defaults that the log gets, and hands in offers_N.csv after each epoch; `curve` has
the seconds of training until then, without those of making offers.
"""

import json
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from nextbuy.data.encoding import encode
from nextbuy.data.histories import Float32, Histories
from nextbuy.data.options import ReadOptions
from nextbuy.data.reading import read_purchases
from nextbuy.data.recoding import in_catalog
from nextbuy.models.first_weights import with_items
from nextbuy.models.neural_scoring import score_histories
from nextbuy.models.protocol import FitOptions, top_k
from nextbuy.models.transformer import Transformer, TransformerConfig
from nextbuy.nn.network import Weights
from nextbuy.predictor.refit import no_cases
from nextbuy.training.engine import create_engine
from nextbuy.training.loop import train
from nextbuy.training.torch_engine import network_of


def encoded(name: str) -> Any:
    frame = pl.read_csv(FOLDER / f"{name}.csv")
    text = frame.with_columns(pl.col("user_id", "item_id").cast(pl.String))
    return encode(read_purchases(text, ReadOptions(time="order", time_column="position")))


class Offers:
    """Ten items for each user of seen.csv that the user has not had."""

    def __init__(self, catalog: Any) -> None:
        seen = encoded("seen")
        self.histories: Histories = in_catalog(seen.histories, seen.catalog, catalog)
        self.names = catalog.table["item_id"].to_numpy()

    def write(self, score: Any, name: str) -> None:
        """By what `score` says of a part of the histories, [U, V + 1]."""
        users, items = [], []
        for start in range(0, len(self.histories), 256):
            part = self.histories.take(np.arange(start, min(start + 256, len(self.histories))))
            log_p: Float32 = score(part)
            log_p[part.owners, part.items] = -np.inf
            users.append(np.repeat(part.user_ids.to_numpy(), 10))
            items.append(self.names[top_k(log_p, 10)[0] - 1].ravel())
        offers = pl.DataFrame({"user_id": np.concatenate(users), "item_id": np.concatenate(items)})
        rank = pl.int_range(pl.len()).mod(10) + 1
        offers.with_columns(pl.all().cast(pl.Int32), rank=rank).write_csv(FOLDER / name)


def warm_up(log: Any, config: TransformerConfig) -> None:
    few = log.histories.take(np.arange(200))
    Transformer(config).fit(few, no_cases(few), log.catalog, FitOptions(epochs=1))


def equal_epochs(longest: int, epochs: int, sample: int) -> dict[str, Any]:
    """Fit for some epochs."""
    log = encoded("train")
    config = TransformerConfig(training={"longest_window": longest, "sample_size": sample})
    warm_up(log, config)
    model = Transformer(config)
    started = time.perf_counter()
    model.fit(log.histories, no_cases(log.histories), log.catalog, FitOptions(epochs=epochs))
    seconds = time.perf_counter() - started
    Offers(log.catalog).write(lambda part: model.log_probabilities(part, None), "offers.csv")
    return {"seconds": round(seconds, 1), "targets": epochs * log.histories.num_purchases}


def each_epoch(longest: int) -> dict[str, Any]:
    """Train as `fit` does, with offers after each epoch."""
    log = encoded("train")
    told = TransformerConfig(training={"longest_window": longest})
    warm_up(log, told)
    offers, model, curve = Offers(log.catalog), Transformer(told), []
    config = model.decided(told, log.histories, log.catalog)
    shape = model.shape_of(config, log.histories, log.catalog)
    network, num_items = network_of(shape), len(log.catalog)
    away = 0.0

    def hand_in(weights: Weights) -> float:
        nonlocal away
        stopped = time.perf_counter()
        curve.append({"epoch": len(curve) + 1, "seconds": round(stopped - started - away, 1)})
        network.load_weights(weights)
        name = f"offers_{len(curve)}.csv"
        offers.write(
            lambda part: score_histories(
                network, part, None, longest=longest, num_items=num_items, temperature=1.0
            ),
            name,
        )
        away += time.perf_counter() - stopped
        return -float(len(curve))  # each epoch counts as better, so that none is left out

    started = time.perf_counter()
    counts = np.bincount(log.histories.items, minlength=num_items + 1)[1:]
    weights = model.first_weights(shape, seed=0, item_counts=counts, longest=longest)
    weights = with_items(weights, config, log.histories, FitOptions(seed=0))
    engine = create_engine(
        "torch", shape, config.training, weights=weights, item_counts=counts, seed=0
    )
    done = train(engine, log.histories, hand_in, config.training, seed=0)
    shutil.copy(FOLDER / f"offers_{done.num_epochs}.csv", FOLDER / "offers.csv")
    targets = done.num_epochs * log.histories.num_purchases
    return {"seconds": curve[-1]["seconds"], "targets": targets, "curve": curve}


def main() -> None:
    longest = int(sys.argv[2])
    if sys.argv[3] == "each":
        facts = each_epoch(longest)
    else:
        facts = equal_epochs(longest, epochs=int(sys.argv[3]), sample=int(sys.argv[4]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(facts | {"peak_memory_mib": peak}))


if __name__ == "__main__":
    FOLDER = Path(sys.argv[1])
    main()
