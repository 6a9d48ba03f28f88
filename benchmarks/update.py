"""Is a predictor that goes on from what it knew as good as one that learns all anew, and how fast?

    python benchmarks/update.py FOLDER --log online_retail_ii        about 20 minutes on 2 cores
    python benchmarks/update.py FOLDER --log complete_journey        half an hour

FOLDER has online_retail_ii.parquet; the Complete Journey (categories) comes from its package. A
champion learns the log up to a moment; then, period by period, one folder is updated with
`incremental` and one without, as `nextbuy update` does it. In the end both, and the champion of the
beginning, are asked about the last period, which nobody has learnt from. Prints one JSON line.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

from nextbuy import Predictor, PredictorConfig
from nextbuy.columns import TIME
from nextbuy.data.options import ReadOptions
from nextbuy.data.sources import load_source
from nextbuy.predictor.learning import read_and_split
from nextbuy.progress import SilentProgress
from nextbuy.service.watching.promotion import compare_bundles
from nextbuy.service.watching.update import current_version, update

LOGS = {"online_retail_ii": "item", "complete_journey": "category"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--log", choices=LOGS, default="online_retail_ii")
    parser.add_argument("--models", nargs="+", default=["personal-frequency", "transformer"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.04, help="of the rows, in each period")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    log = frame(arguments.log, arguments.data)
    num_cuts = arguments.rounds + 2
    cuts = [log[TIME].quantile(1 - arguments.share * (num_cuts - 1 - i)) for i in range(num_cuts)]
    config = PredictorConfig(
        models=tuple(arguments.models), level=LOGS[arguments.log], refit_full=True,
        seed=arguments.seed,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        found = compared(log, cuts, config, Path(folder))
    told = {
        "log": arguments.log, "models": arguments.models, "rounds": arguments.rounds,
        "share": arguments.share, "seed": arguments.seed,
    }  # fmt: skip
    print(json.dumps(told | found))


def frame(name: str, folder: Path) -> pl.DataFrame:
    """The log as rows with the names of `columns`."""
    path = folder / f"{name}.parquet"
    of_package = name == "complete_journey"
    if not of_package and not path.exists():
        sys.exit(f"{path} is not here: it is one of the logs that are measured on.")
    data = "complete-journey" if of_package else path
    source = load_source(data, users=None, seed=0, options=ReadOptions(), progress=SilentProgress())
    return source.purchases.frame


def compared(
    log: pl.DataFrame, cuts: list[Any], config: PredictorConfig, folder: Path
) -> dict[str, Any]:
    """Seconds of the updates, and scores on the period after the last cut but one."""
    until = [log.filter(pl.col(TIME) < cut) for cut in cuts]
    started = time.monotonic()
    Predictor.fit(until[0], config=config).save(folder / "whole")
    trained = time.monotonic() - started
    shutil.copytree(folder / "whole", folder / "incremental")
    shutil.copytree(folder / "whole", folder / "before")
    seconds: dict[str, list[float]] = {"whole": [], "incremental": []}
    promoted: dict[str, list[bool]] = {"whole": [], "incremental": []}
    for rows in until[1:-1]:
        for name, taken in seconds.items():
            started = time.monotonic()
            found = update(folder / name, rows, incremental=name == "incremental")
            taken.append(round(time.monotonic() - started, 1))
            promoted[name].append(found.promoted)
            print(name, taken[-1], found.reason, file=sys.stderr)
    bundles = {name: newest(folder / name) for name in ("before", "whole", "incremental")}
    last = int(bundles["whole"].histories.times.max())
    options = bundles["whole"].read_options()
    _, _, split = read_and_split(until[-1], config, options, None, SilentProgress(), after=last)
    scores = {
        name: compare_bundles(
            bundles[name], bundles["incremental"], split.test.in_catalog(split.catalog,
            bundles["incremental"].catalog), seed=config.seed, progress=SilentProgress(),
        ).as_dict()
        for name in ("before", "whole")
    }  # fmt: skip
    return {
        "train_seconds": round(trained, 1), "update_seconds": seconds, "promoted": promoted,
        "incremental_against": {n: one["metrics"] for n, one in scores.items()},
        "cases": scores["whole"]["num_cases"],
    }  # fmt: skip


def newest(folder: Path) -> Predictor:
    return Predictor.load(folder / "versions" / current_version(folder))


if __name__ == "__main__":
    main()
