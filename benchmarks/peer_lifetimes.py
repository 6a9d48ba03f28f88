"""Fit the BG/NBD of `lifetimes` on x, t_x and T; run by timing.py in an environment of its own.

    python peer_lifetimes.py COUNTS.csv REPEATS

Prints one JSON object: the seconds of each fit and the parameters of the last.
"""

import json
import sys
import time

import pandas as pd
from lifetimes import BetaGeoFitter


def main() -> None:
    counts = pd.read_csv(sys.argv[1])
    seconds = []
    for _ in range(int(sys.argv[2])):
        fitter = BetaGeoFitter(penalizer_coef=0.0)
        started = time.perf_counter()
        fitter.fit(counts["x"], counts["t_x"], counts["T"])
        seconds.append(time.perf_counter() - started)
    parameters = {name: float(fitter.params_[name]) for name in ("r", "alpha", "a", "b")}
    print(json.dumps({"seconds": seconds, "parameters": parameters}))


if __name__ == "__main__":
    main()
