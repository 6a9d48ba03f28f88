"""The published numbers of next-basket models on Ta-Feng, and what the blend makes of them.

    python benchmarks/tafeng.py PATH/tafeng_nbr.parquet

Protocol of Li et al. (TOIS 2023): the last basket of each user is the target, all before it the
history; recall@10 and NDCG@10 over all users, the ideal of NDCG being that of all true items.

"as published" are the definitions of the papers: personal frequency breaks ties by what was bought
first; TIFU-KNN and UP-CF take neighbours from 80 % and 50 % of the users and answer for the others
(mean of three random cuts), with raw scores. "in the library" are the same models as nextbuy fits
them: calibrated with a back-off to popularity, which also breaks ties, on all users. The
blend chooses on the last basket of each history: its members learn from what lies before that, are
then fitted again on whole histories with the calibration and the weights kept, and asked for the
target. Prints one JSON object.
"""

import argparse
import json
import resource
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nextbuy.data.catalog import Catalog
from nextbuy.data.encoding import encode
from nextbuy.data.histories import Histories
from nextbuy.data.options import ReadOptions
from nextbuy.data.reading import read_purchases
from nextbuy.models.blend import Blend, blend_weights, target_likelihoods
from nextbuy.models.protocol import FitOptions, FittedModel, top_k
from nextbuy.models.registry import create
from nextbuy.models.scored import ScoredModel
from nextbuy.splitting.cases import Cases
from nextbuy.splitting.leave_last_out import leave_last_out

MEMBERS = ("popularity", "personal-frequency", "markov", "item-knn", "ease", "tifu-knn", "up-cf")
PUBLISHED = {
    "G-TopFreq": 0.0803, "P-TopFreq": 0.1062, "GP-TopFreq": 0.1195,
    "tifu-knn": 0.1285, "up-cf": 0.1245,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    if not arguments.data.exists():
        sys.exit(f"{arguments.data} is not here; nothing was measured.")
    cases, catalog, split = prepare(arguments.data)
    published = as_published(cases, catalog)
    results: dict[str, Any] = {}
    whole: dict[str, FittedModel] = {}
    chosen: dict[str, FittedModel] = {}
    nothing = split.validation.take(np.array([], dtype=np.int64))
    for name in MEMBERS:
        started = time.perf_counter()
        model = create(name).fit(split.train, split.validation, catalog, FitOptions())
        again = create(name, **settings_of(model)).fit(
            cases.histories, nothing, catalog, FitOptions()
        )
        if isinstance(model, ScoredModel) and isinstance(again, ScoredModel):
            again.calibration = model.calibration
        seconds = time.perf_counter() - started
        chosen[name], whole[name] = model, again
        results[name] = measure(probabilities_of(again), cases) | {"fit_seconds": round(seconds, 2)}
        say(f"{name}: {results[name]}")
    found = target_likelihoods(list(chosen.values()), split.validation)

    blend = Blend(whole, blend_weights(list(whole), found))
    results["blend"] = measure(probabilities_of(blend), cases) | {"words": blend.in_words()}
    over = {
        name: {key: round(results["blend"][key] / tifu[key], 3) for key in ("recall@10", "ndcg@10")}
        for name, tifu in [
            ("as published", published["tifu-knn"]),
            ("in the library", results["tifu-knn"]),
        ]
    }
    report = {
        "users": len(cases),
        "items": len(catalog),
        "recall@10 in the literature": PUBLISHED,
        "as published": published,
        "in the library": results,
        "blend over tifu-knn": over,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(report, indent=2))


def as_published(cases: Cases, catalog: Catalog) -> dict[str, Any]:
    """The models as their papers define them, without calibration."""
    num_items = len(catalog)
    counts = np.bincount(cases.histories.items, minlength=num_items + 1)[1:]
    total = 1.0 / (counts.sum() + 1)
    found: dict[str, Any] = {
        "G-TopFreq": measure(lambda h: np.repeat(counts[None], len(h), 0), cases),
        "P-TopFreq": measure(lambda h: frequencies(h, num_items), cases),
        # 1e-7 of popularity: below the step between two frequencies, and below that between ties.
        "GP-TopFreq": measure(lambda h: frequencies(h, num_items) + 1e-7 * counts * total, cases),
    }
    for name, share in (("tifu-knn", 0.8), ("up-cf", 0.5)):
        model: Any = create(name)
        cuts = []
        for seed in range(3):
            users = np.random.default_rng(seed).permutation(len(cases))
            neighbours, asked = np.split(users, [int(share * len(users))])
            part = cases.take(np.sort(asked))
            arrays = model.learn(
                cases.histories.take(np.sort(neighbours)), part, catalog, FitOptions()
            )
            cuts.append(measure(partial(model.scores, arrays, num_items=num_items), part))
        found[name] = {key: round(float(np.mean([c[key] for c in cuts])), 4) for key in cuts[0]}
    for name, row in found.items():
        say(f"{name} as published: {row}")
    return found


def prepare(path: Path) -> tuple[Cases, Catalog, Any]:
    """All cases of the protocol, the catalog, and a split of the histories to choose on."""
    frame = pl.read_parquet(path)
    text = frame.with_columns(pl.col("user_id", "item_id", "basket_id").cast(pl.String))
    options = ReadOptions(time="order", baskets="column")
    encoded = encode(read_purchases(text.drop("split"), options))
    outer = leave_last_out(encoded.catalog, encoded.histories)
    inner = leave_last_out(outer.catalog, outer.test.histories)
    split = replace(
        inner,
        train=inner.train,
        validation=inner.test.in_catalog(inner.catalog, outer.catalog),
    )
    from nextbuy.data.recoding import in_catalog

    before = in_catalog(inner.test.histories, inner.catalog, outer.catalog)
    return outer.test, outer.catalog, replace(split, train=before)


def settings_of(model: Any) -> dict[str, Any]:
    settings: dict[str, Any] = model.config.model_dump()
    return settings


def frequencies(histories: Histories, num_items: int) -> NDArray[np.float64]:
    """Times that each item was bought, [U, V]; ties go to what was bought first."""
    table = np.zeros((len(histories), num_items))
    place = np.arange(len(histories.items)) - histories.offsets[:-1][histories.owners]
    pairs, first = np.unique(histories.owners * num_items + histories.items - 1, return_index=True)
    np.add.at(table, (histories.owners, histories.items - 1), 1.0)
    table[pairs // num_items, pairs % num_items] -= 1e-5 * place[first]
    return table


def probabilities_of(model: FittedModel) -> Any:
    return lambda histories: np.exp(model.log_probabilities(histories, None)[:, 1:])


def measure(scorer: Any, cases: Cases, k: int = 10) -> dict[str, float]:
    """Recall and NDCG at k, means over users; items without any score are not offered."""
    started = time.perf_counter()
    recall, ndcg, hits = [], [], []
    discounts = 1.0 / np.log2(np.arange(2, 500))
    for start in range(0, len(cases), 512):
        part = cases.take(np.arange(start, min(start + 512, len(cases))))
        scores = np.asarray(scorer(part.histories), dtype=np.float64)
        padded = np.pad(scores, ((0, 0), (1, 0)), constant_values=-np.inf)
        items, values = top_k(padded, k)
        items = np.where(values > 0, items, 0)
        for row, offered in enumerate(items):
            true = part.target_items[part.target_offsets[row] : part.target_offsets[row + 1]]
            hit = np.isin(offered, true[true > 0])
            recall.append(hit.sum() / len(true))
            ndcg.append((hit * discounts[:k]).sum() / discounts[: len(true)].sum())
            hits.append(hit.any())
    return {
        "recall@10": round(float(np.mean(recall)), 4),
        "ndcg@10": round(float(np.mean(ndcg)), 4),
        "phr@10": round(float(np.mean(hits)), 4),
        "scoring_seconds": round(time.perf_counter() - started, 2),
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
