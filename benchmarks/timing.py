"""Timing models beside the published numbers of CDNOW, and the speed of a fit beside `lifetimes`.

    python benchmarks/timing.py FOLDER

FOLDER has cdnow_sample.parquet and cdnow.parquet (user_id, timestamp in seconds). As in the papers,
time is counted in weeks, from the first day on, to the end of the calibration (1997-09-30, whose
purchases are seen); the holdout is the 39 weeks after it. `lifetimes` runs in an environment of its
own, which is made from the package index when it is missing (`--environments`); if it cannot be,
that is reported. Both fit the same x, t_x and T, in one process each, on one thread, several times;
the median counts. Prints a table of what was asked and seen, then one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from nextbuy.data.histories import DAY, Histories, offsets_of
from nextbuy.timing.bg_nbd import BetaGeometricParameters, BgNbd
from nextbuy.timing.blend import TimingBlend
from nextbuy.timing.gamma_gamma import GammaGamma, GammaGammaConfig
from nextbuy.timing.mbg_nbd import MbgNbd
from nextbuy.timing.pareto_nbd import ParetoNbd
from nextbuy.timing.protocol import log_likelihood as wait_likelihood
from nextbuy.timing.renewal import Renewal, RenewalConfig
from nextbuy.timing.repeat_purchases import RepeatPurchases, repeat_purchases
from nextbuy.timing.waits import waits_after

HERE = Path(__file__).parent
LIFETIMES = ["lifetimes==0.11.3", "numpy==1.26.4", "scipy==1.11.4", "pandas==2.2.3",
             "autograd==1.6.2"]  # fmt: skip
CALIBRATION_END = int(datetime(1997, 9, 30, tzinfo=UTC).timestamp() * 1e6) + 1
LOG_END = int(datetime(1998, 6, 30, tzinfo=UTC).timestamp() * 1e6) + 1
HOLDOUT_DAYS = 273.0
PUBLISHED = {
    "bg-nbd": {"r": ".2426", "alpha": "4.414", "a": ".793", "b": "2.426",
               "log_likelihood": "-9582.4", "holdout_correlation": ".626", "holdout_mae": ".785"},
    "pareto-nbd": {"r": ".553", "alpha": "10.578", "s": ".606", "beta": "11.669",
                   "log_likelihood": "-9595.0", "holdout_correlation": ".630"},
    "gamma-gamma": {"p": "6.25", "q": "3.74", "gamma": "15.44"},
}  # fmt: skip
"""Fader, Hardie and Lee 2005; Fader and Hardie 2013 (repeat purchases only); digits as given."""
MODELS: tuple[Any, ...] = (BgNbd, MbgNbd, ParetoNbd)
FITS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--environments", type=Path, default=HERE.parent / "build" / "peers")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    sample, whole = (arguments.data / f"{n}.parquet" for n in ("cdnow_sample", "cdnow"))
    if sample.exists():
        found["cdnow_sample"] = holdout(sample)
        print_table(found["cdnow_sample"])
    else:
        print(f"{sample} is not here; the published numbers were not compared.")
    if whole.exists():
        found["cdnow"] = holdout(whole)
        found["fit"] = beside_lifetimes(whole, arguments.environments / "lifetimes")
    else:
        print(f"{whole} is not here; the time of a fit was not compared.")
    print(json.dumps(found, indent=1))


def histories_of(source: Path) -> Histories:
    """Each row an order of its own; the item does not matter here."""
    frame = pl.read_parquet(source).sort("user_id", "timestamp", maintain_order=True)
    users = frame.group_by("user_id", maintain_order=True).len()
    return Histories(
        user_ids=users["user_id"].cast(pl.String),
        items=np.ones(len(frame), dtype=np.int32),
        times=frame["timestamp"].cast(pl.Int64).to_numpy() * 1_000_000,
        baskets=np.arange(len(frame), dtype=np.int32),
        offsets=offsets_of(users["len"].to_numpy().astype(np.int64)),
    )


def holdout(source: Path) -> dict[str, Any]:
    """Parameters, log-likelihood in weeks, and how the next 39 weeks were foretold."""
    histories = histories_of(source)
    seen = repeat_purchases(histories, CALIBRATION_END, days_per_unit=7)
    truth = repeat_purchases(histories, LOG_END, days_per_unit=7).repeats - seen.repeats
    found: dict[str, Any] = {"purchases_in_holdout": float(truth.sum())}
    for model_class in MODELS:
        model = model_class().fit_counts(seen)
        expected = model.outlook_of(seen).expected_purchases([HOLDOUT_DAYS])[:, 0]
        found[model.name] = model.parameters.model_dump() | {
            "log_likelihood": float(log_likelihood(model, seen)),
            "holdout_correlation": float(np.corrcoef(expected, truth)[0, 1]),
            "holdout_mae": float(np.abs(expected - truth).mean()),
            "holdout_total": float(expected.sum()),
        }
    prices = pl.read_parquet(source).sort("user_id", "timestamp", maintain_order=True)["price"]
    priced = replace(histories, prices=prices.cast(pl.Float32).to_numpy())
    spend = GammaGamma(GammaGammaConfig(first_purchase=False)).fit(priced, CALIBRATION_END)
    found[spend.name] = spend.fitted().model_dump()
    return found | {"waits": waits_in_holdout(histories, truth)}


def waits_in_holdout(histories: Histories, truth: Any) -> dict[str, Any]:
    """Each model alone, and a blend weighed on the last 13 weeks of the calibration."""
    blend = TimingBlend(
        {m.name: m() for m in MODELS}
        | {f"renewal-{d}": Renewal(RenewalConfig(distribution=d))
           for d in ("log-normal", "gamma", "weibull")}
    )  # fmt: skip
    before = CALIBRATION_END - 91 * DAY
    chosen_on = waits_after(histories, before, CALIBRATION_END)
    blend.fit(histories, before).weigh(histories, before, chosen_on).fit(histories, CALIBRATION_END)
    waits = waits_after(histories, CALIBRATION_END, LOG_END)
    found: dict[str, Any] = {"weights": blend.weights}
    for name, model in {**blend.members, "blend": blend}.items():
        outlook = model.outlook(histories, CALIBRATION_END)
        expected = outlook.expected_purchases([HOLDOUT_DAYS])[:, 0]
        worth = wait_likelihood(outlook, waits.days, waits.observed)
        found[name] = {
            "log_likelihood_per_user": float(worth.mean()),
            "holdout_mae": float(np.abs(expected - truth).mean()),
            "holdout_total": float(expected.sum()),
        }
    return found


def log_likelihood(model: Any, seen: RepeatPurchases) -> float:
    """Of all users, in weeks."""
    return float(model.log_likelihood(seen.repeats, seen.last, seen.age).sum())


def print_table(found: dict[str, Any]) -> None:
    print(f"{'cdnow_sample':<12}{'':<22}{'asked':>10}{'seen':>14}")
    for name, asked in PUBLISHED.items():
        for key, text in asked.items():
            seen = found.get(name, {}).get(key)
            digits = len(text.partition(".")[2])
            same = seen is not None and f"{seen:.{digits}f}" == f"{float(text):.{digits}f}"
            shown = "missing" if seen is None else f"{seen:.{digits + 2}f}"
            print(f"{name:<12}{key:<22}{text:>10}{shown:>14}  {'same' if same else 'DIFFERS'}")


def beside_lifetimes(source: Path, place: Path) -> dict[str, Any]:
    """Seconds of a fit of BG/NBD, ours and that of lifetimes, and both log-likelihoods."""
    seen = repeat_purchases(histories_of(source), CALIBRATION_END, days_per_unit=7)
    BgNbd().fit_counts(seen)  # what is loaded once
    seconds = []
    for _ in range(FITS):
        started = time.perf_counter()
        model = BgNbd().fit_counts(seen)
        seconds.append(time.perf_counter() - started)
    facts: dict[str, Any] = {
        "customers": len(seen), "seconds": float(np.median(seconds)),
        "log_likelihood": log_likelihood(model, seen),
    }  # fmt: skip
    python = environment(place)
    if python is None:
        return facts | {"lifetimes": f"missing: {' '.join(LIFETIMES)} could not be installed"}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "counts.csv"
        counts = {"x": seen.repeats.astype(np.int64), "t_x": seen.last, "T": seen.age}
        pl.DataFrame(counts).write_csv(table)
        command = [str(python), str(HERE / "peer_lifetimes.py"), str(table), "3"]
        one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | one
        )
    peer = json.loads(done.stdout.strip().splitlines()[-1])
    theirs = BgNbd()
    theirs.parameters = BetaGeometricParameters(**peer["parameters"])
    median = float(np.median(peer["seconds"]))
    facts["lifetimes"] = {"seconds": median, "log_likelihood": log_likelihood(theirs, seen)}
    facts["times_faster"] = round(median / facts["seconds"], 1)
    difference = facts["log_likelihood"] - facts["lifetimes"]["log_likelihood"]
    facts["relative_difference"] = difference / abs(facts["log_likelihood"])
    return facts


def environment(place: Path) -> Path | None:
    """The interpreter of an environment that has lifetimes; None if it cannot be made."""
    python = place / "bin" / "python"
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*install, *LIFETIMES], check=True)
    except subprocess.CalledProcessError:
        return None
    return python


if __name__ == "__main__":
    main()
