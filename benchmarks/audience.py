"""Audiences beside rankings by frequency and recency, and on a world beside the truth.

    python benchmarks/audience.py                      both logs, some ten minutes on 2 cores
    python benchmarks/audience.py --only market --users 5000 --epochs 6

The Complete Journey (from its package; ten most bought categories, 14 days) and `world:market` (ten
most bought platforms, 7 days). A predictor is trained under the temporal split and asked at the
moment at which its test period begins, through `Predictor.audience`; nothing after it taught it.
Frequency ranks by the number of baskets with the target, recency by the latest of them; ties are
broken by the order of users. Beside each calibration error stands what it would be by chance if
every probability were right. The truth is simulated: a segment is drawn from the exact posterior,
then purchases by the laws of the world. It ranks by one half of the draws and is judged by the
other, so that its precision is in expectation, and a little below what can be reached. Prints a
table, then one JSON object.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
import polars as pl

from nextbuy import Predictor, PredictorConfig, columns
from nextbuy.audience.target import KINDS, Kind, Target, most_bought
from nextbuy.cli.rendering import ProgressBar
from nextbuy.data.catalog import recount
from nextbuy.data.histories import DAY, Histories
from nextbuy.data.worlds.market import MarketWorld
from nextbuy.data.worlds.market_parameters import DAY_US, MEMORY, START_US
from nextbuy.data.worlds.market_simulation import Users, next_days, next_items
from nextbuy.data.worlds.market_truth import Window, days_of, next_time, recent_rows
from nextbuy.data.worlds.normal import NormalTail
from nextbuy.data.worlds.world import own_histories, own_items
from nextbuy.errors import MissingExtraError
from nextbuy.metrics.calibration import ece_by_chance, reliability
from nextbuy.metrics.targeting import targeting
from nextbuy.seeding import generator

LOGS: dict[str, tuple[str, str, Kind, int]] = {
    "complete-journey": ("complete-journey", "category", "category", 14),
    "market": ("world:market", "item", "platform", 7),
}
"""Source, level, kind of target, days."""
MODELS = {
    "complete-journey": "personal-frequency,tifu-knn,ease,transformer",
    "market": "personal-frequency,markov,tifu-knn,transformer",
}
HALVES, DRAWS = 2, 200
"""Draws of each user's future in each half."""
CHUNK = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=LOGS)
    parser.add_argument("--models", help="comma-separated, instead of counting and a transformer")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--users", type=int, default=5_000, help="of the market")
    arguments = parser.parse_args()
    found = {}
    for name in [arguments.only] if arguments.only else LOGS:
        try:
            found[name] = measure(name, arguments)
        except MissingExtraError as error:
            print(f"{name} was not measured: {error}")
    print(json.dumps(found, indent=1))


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, ask, and hold against what came."""
    data, level, kind, days = LOGS[name]
    models = (arguments.models or MODELS[name]).split(",")
    started = time.perf_counter()
    with ProgressBar() as progress:
        predictor = Predictor.fit(
            data, config=PredictorConfig.of(models=models, level=level, epochs=arguments.epochs),
            users=arguments.users if name == "market" else None, progress=progress,
        )  # fmt: skip
    trained = time.perf_counter() - started
    start = int(predictor.split.test.as_of[0])
    seen = predictor.histories.keep(predictor.histories.times < start)
    known, _ = recount(predictor.catalog, seen.item_counts(len(predictor.catalog)))
    targets = most_bought(known, kind, 10)
    truth = simulated_chances(predictor, seen, start, days, targets)
    rows = [
        one_target(predictor, target, start, days, None if truth is None else truth[:, :, place])
        for place, target in enumerate(targets)
    ]
    facts = {
        "days": days, "users": rows[0].pop("users"), "models": models, "epochs": arguments.epochs,
        "best_model": predictor.best_model, "blend": predictor.blend_in_words,
        "seconds_of_training": round(trained, 1),
        "calibration": predictor.facts["audience"]["calibration"],
        "seconds_of_an_audience": rows[-1]["seconds"],
        "pooled_ece": pooled_error(rows), "targets": rows,
    }  # fmt: skip
    print_table(name, facts)
    return facts


def one_target(
    predictor: Predictor, target: Target, start: int, days: int, truth: Any
) -> dict[str, Any]:
    """Every ranking of one target."""
    asked = {target.kind: target.name, "within_days": days, "as_of": start}
    began = time.perf_counter()
    table = predictor.audience(**asked)
    seconds = time.perf_counter() - began
    log, users = purchases_of(predictor, target), predictor.histories.user_ids.to_frame()
    before, after = pl.col("at") < start, pl.col("at") >= start
    within = after & (pl.col("at") < start + days * DAY)
    each = log.group_by(columns.USER).agg(
        pl.col("at").filter(before).n_unique().alias("frequency"),
        pl.col("at").filter(before).max().alias("recency"),
        within.any().alias("bought"), pl.col("money").filter(within).sum(),
    )  # fmt: skip
    # In the order of users, so that equal scores are broken alike in all rankings.
    rows = users.with_row_index().join(table, on=columns.USER, maintain_order="left").join(
        each, on=columns.USER, how="left", maintain_order="left"
    ).with_columns(
        pl.col("frequency").fill_null(0), pl.col("recency").fill_null(0),
        pl.col("bought").fill_null(False), pl.col("money").fill_null(0.0),
    )  # fmt: skip
    bought, money = rows["bought"].to_numpy(), rows["money"].to_numpy()
    said = rows["probability"].to_numpy()
    found: dict[str, Any] = {
        "name": target.name, "users": rows.height, "bought": float(bought.mean()),
        "said": float(said.mean()), "ece": reliability(said, bought).ece,
        "ece_by_chance": ece_by_chance(said), "seconds": seconds,
    }  # fmt: skip
    for name in ("probability", "frequency", "recency"):
        scores = rows[name].to_numpy().astype(np.float64)
        found[name] = targeting(scores, bought, money).as_dict()
    if truth is not None:
        first, second = truth[:, rows["index"].to_numpy()]
        found["limit"] = targeting(first, second).as_dict()
        found["limit_realised"] = targeting(first + second, bought, money).as_dict()
        found["said_off_truth"] = float(np.abs(said - (first + second) / 2).mean())
        found["ece_of_truth"] = reliability((first + second) / 2, bought).ece
    found["cases"] = list(zip(said.tolist(), bought.tolist(), strict=True))
    return found


def purchases_of(predictor: Predictor, target: Target) -> pl.DataFrame:
    """User, moment and money of every purchase of a target in the log."""
    frame = predictor.source.purchases.frame
    frame = frame.filter(pl.col(KINDS[target.kind]) == target.name)
    return frame.select(
        columns.USER, pl.col(columns.TIME).dt.epoch("us").alias("at"),
        (pl.col(columns.PRICE) * pl.col(columns.QUANTITY)).fill_null(0.0).alias("money"),
    )  # fmt: skip


def pooled_error(rows: list[dict[str, Any]]) -> float:
    """Calibration error of all targets together; takes the cases out of the rows."""
    said, bought = np.array([case for row in rows for case in row.pop("cases")]).T
    return reliability(said, bought).ece


def simulated_chances(
    predictor: Predictor, seen: Histories, start: int, days: int, targets: list[Target]
) -> Any:
    """P(any purchase of each target within the days) under the truth, [halves, users, targets];
    None where there is no truth to ask."""
    world = predictor.source.world
    if not isinstance(world, MarketWorld):
        return None
    own = own_items(predictor.catalog, world._item_ids, world.name)
    mine = own_histories(seen, own, world.name)
    place_of = {name: place for place, name in enumerate(world.platforms)}
    wanted = [place_of[target.name] for target in targets]
    rng = generator(world.seed, "benchmark of audiences")
    chances = np.zeros((HALVES, len(mine), len(targets)))
    for half in range(HALVES):
        for first in range(0, len(mine), CHUNK):
            rows = np.arange(first, min(first + CHUNK, len(mine)))
            chances[half, rows] = futures(world, mine.take(rows), start, days, rng)[:, wanted]
    return chances


def futures(
    world: MarketWorld, histories: Histories, start: int, days: int, rng: np.random.Generator
) -> Any:
    """Share of the draws in which each user buys from each platform, [users, platforms]."""
    laws, tail, num_users = world.parameters, NormalTail(), len(histories)
    moments = np.full(num_users, start, dtype=np.int64)
    posterior = next_time(laws, histories, Window(as_of=moments), tail).posterior
    who = np.repeat(np.arange(num_users), DRAWS)
    segments = (posterior.cumsum(axis=1)[who] < rng.random(len(who))[:, None]).sum(axis=1)
    users = ring_of(histories).take(who)
    users.segments = np.minimum(segments, posterior.shape[1] - 1)
    now = (start - START_US) / DAY_US
    last = users.days[np.arange(len(who)), (users.counts - 1) % MEMORY]
    mean, spread = laws.gap_mean[users.segments], laws.gap_spread[users.segments]
    beyond = tail.log_tail((np.log(now - last) - mean) / spread)
    at = last + np.exp(mean + spread * tail.z_of(beyond + np.log(rng.random(len(who)))))
    draw, bought = np.arange(len(who)), np.zeros((len(who), len(world.platforms)), dtype=bool)
    while True:
        inside = np.flatnonzero(at < now + days)
        if not len(inside):
            return bought.reshape(num_users, DRAWS, -1).mean(axis=1)
        users, at, draw = users.take(inside), at[inside], draw[inside]
        items = next_items(laws, users, at, rng)
        bought[draw, laws.platform_of[items]] = True
        users.remember(at, items)
        at = next_days(laws, users, rng)


def ring_of(histories: Histories) -> Users:
    """Where each user stands, as the simulation has it; every user has bought."""
    users = Users.new(np.zeros(len(histories), dtype=np.int64))
    rows = recent_rows(histories)
    user, lag = np.nonzero(rows >= 0)
    slots = (histories.lengths[user] - 1 - lag) % MEMORY
    users.days[user, slots] = days_of(histories.times)[rows[user, lag]]
    users.items[user, slots] = histories.items[rows[user, lag]]
    users.counts[:] = histories.lengths
    return users


def print_table(name: str, facts: dict[str, Any]) -> None:
    """Precision in the best tenth, and what it holds of all buyers and all money."""
    print(f"\n{name}: within {facts['days']} days, {facts['users']:,} users, {facts['best_model']}")
    rankings = [r for r in ("probability", "frequency", "recency", "limit", "limit_realised")
                if r in facts["targets"][0]]  # fmt: skip
    heads = "".join(f"{r:>18}" for r in rankings)
    print("of the best tenth: precision, lift, gain")
    print(f"{'':<24}{'bought':>7}{'ece':>6}{'chance':>8}{heads}")
    for row in [*facts["targets"], mean_row(facts["targets"], rankings)]:
        cells = "".join(
            f"{row[r]['precision'][0]:>8.3f}{row[r]['lift'][0]:>5.1f}{row[r]['gain'][0]:>5.2f}"
            for r in rankings
        )
        errors = f"{row['ece']:>6.3f}{row['ece_by_chance']:>8.3f}"
        print(f"{row['name'][:23]:<24}{row['bought']:>7.3f}{errors}{cells}")
    print(f"calibration error of all targets together: asked .020, seen {facts['pooled_ece']:.4f}")
    for r in ("frequency", "recency"):
        better = sum(row["probability"]["precision"][0] > row[r]["precision"][0]
                     for row in facts["targets"])  # fmt: skip
        print(f"above {r} in precision of the best tenth: asked 10 of 10, seen {better}")


def mean_row(rows: list[dict[str, Any]], rankings: list[str]) -> dict[str, Any]:
    """The means over targets."""
    numbers = {
        key: np.mean([row[key] for row in rows]) for key in ("bought", "ece", "ece_by_chance")
    }
    of_rankings = {
        ranking: {
            measure: [np.mean([row[ranking][measure][0] for row in rows])]
            for measure in ("precision", "lift", "gain")
        }
        for ranking in rankings
    }
    return {"name": "mean", **numbers, **of_rankings}


if __name__ == "__main__":
    main()
