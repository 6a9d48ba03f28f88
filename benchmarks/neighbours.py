"""What TIFU-KNN and EASE cost, against scikit-learn and against the machine's own matrix product.

    python benchmarks/neighbours.py PATH/tafeng_nbr.parquet

TIFU-KNN: fitting and scoring all users of Ta-Feng, in this library and as one would write it with
NumPy and scikit-learn: dense user vectors, `NearestNeighbors(algorithm="brute")`, the mean of the
neighbours' vectors. Both must agree. EASE: the dense solution for 20,000 items, as GFLOP/s (V^3
multiplications and additions for the inverse of a symmetric matrix, by LAPACK's count) over those
of a single-precision matrix product. Each part runs in a process of its own. Prints one object.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ITEMS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", choices=PARTS)
    arguments = parser.parse_args()
    if not arguments.data.exists():
        sys.exit(f"{arguments.data} is not here; nothing was measured.")
    if arguments.only:
        facts = PARTS[arguments.only](arguments.data)
        facts["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps(facts))
        return
    found = {}
    for name in PARTS:
        command = [sys.executable, __file__, str(arguments.data), "--only", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[name] = json.loads(done.stdout)
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    ratio = found["tifu-knn by scikit-learn"]["seconds"] / found["tifu-knn"]["seconds"]
    same = found["tifu-knn by scikit-learn"]["checksum"] / found["tifu-knn"]["checksum"]
    agree = {"scikit-learn over nextbuy": round(ratio, 1), "checksums agree to": abs(same - 1)}
    print(json.dumps(found | agree, indent=2))


def baskets_of(path: Path) -> tuple[Any, Any]:
    """Histories before the last basket, and the catalog."""
    from tafeng import prepare

    cases, catalog, _ = prepare(path)
    return cases.histories, catalog


class Watch:
    """Adds up the time within its blocks: what checks the answers is not the answering."""

    def __init__(self) -> None:
        self.seconds = self.processor_seconds = 0.0

    def __enter__(self) -> None:
        self._started, self._used = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._started
        self.processor_seconds += time.process_time() - self._used


def tifu(path: Path) -> dict[str, Any]:
    from nextbuy.models.protocol import FitOptions
    from nextbuy.models.tifu_knn import TifuKnn

    histories, catalog = baskets_of(path)
    model = TifuKnn()
    times, processor, checksum = [], [], 0.0
    for _ in range(3):
        watch = Watch()
        with watch:
            arrays = model.learn(histories, None, catalog, FitOptions())  # type: ignore[arg-type]
        checksum = 0.0
        for start in range(0, len(histories), 1024):
            with watch:
                part = histories.take(np.arange(start, min(start + 1024, len(histories))))
                scores = model.scores(arrays, part, len(catalog))
            checksum += float((scores**2).sum(dtype=np.float64))
        times.append(watch.seconds)
        processor.append(watch.processor_seconds)
    return {
        "seconds": round(float(np.median(times)), 2),
        "processor_seconds": round(float(np.median(processor)), 2),
        "checksum": checksum,
    }


def tifu_by_scikit_learn(path: Path) -> dict[str, Any]:
    from sklearn.neighbors import NearestNeighbors

    from nextbuy.models.tifu_knn import TifuKnnConfig

    histories, catalog = baskets_of(path)
    config, watch = TifuKnnConfig(), Watch()
    with watch:
        vectors = plain_vectors(histories, len(catalog), config)
        nearest = NearestNeighbors(n_neighbors=config.neighbours, algorithm="brute").fit(vectors)
    checksum = 0.0
    for start in range(0, len(histories), 1024):
        with watch:
            block = vectors[start : start + 1024]
            near = nearest.kneighbors(block, return_distance=False)
            means = np.array([vectors[row].mean(axis=0) for row in near])
            scores = config.own_share * block + (1 - config.own_share) * means
        checksum += float((scores**2).sum())
    return {
        "seconds": round(watch.seconds, 2),
        "processor_seconds": round(watch.processor_seconds, 2),
        "checksum": checksum,
    }


def plain_vectors(histories: Any, num_items: int, config: Any) -> Any:
    """The vector of each user, as one would write it from the paper."""
    vectors = np.zeros((len(histories), num_items))
    for user in range(len(histories)):
        own = slice(histories.offsets[user], histories.offsets[user + 1])
        items, baskets = histories.items[own], histories.baskets[own]
        rows = []
        for basket in np.unique(baskets):
            row = np.zeros(num_items)
            row[items[baskets == basket] - 1] = 1.0
            rows.append(row)
        n, m = len(rows), config.groups
        rows = [row * config.within_decay ** (n - 1 - t) for t, row in enumerate(rows)]
        if n < m:
            groups = [[row] for row in rows]
        else:
            small, larger = n // m, n % m
            sizes = [small] * (m - larger) + [small + 1] * larger
            ends = np.cumsum(sizes)
            groups = [rows[end - size : end] for end, size in zip(ends, sizes, strict=True)]
        for g, group in enumerate(groups):
            vectors[user] += config.group_decay ** (m - 1 - g) * np.mean(group, axis=0)
        vectors[user] /= len(groups)
    return vectors


def ease(_: Path) -> dict[str, Any]:
    from scipy import sparse

    from nextbuy.models.ease import dense_weights

    rng = np.random.default_rng(0)
    users, each = 50_000, 20
    popularity = 1.0 / np.arange(1, ITEMS + 1) ** 0.7
    columns = rng.choice(ITEMS, users * each, p=popularity / popularity.sum())
    bought = sparse.csr_array(
        (np.ones(users * each, np.float32), (np.repeat(np.arange(users), each), columns)),
        shape=(users, ITEMS),
    )
    bought.data[:] = 1.0
    gflops = sgemm()
    started = time.perf_counter()
    weights = dense_weights(bought, 500.0)
    seconds = time.perf_counter() - started
    assert np.isfinite(weights).all()
    assert not weights.diagonal().any()
    done = 2 * ITEMS**3 / 1e9 / seconds
    return {
        "seconds": round(seconds, 1),
        "gflops": round(done, 1),
        "sgemm_gflops": round(gflops, 1),
        "over_sgemm": round(done / gflops, 2),
    }


def sgemm(size: int = 4096) -> float:
    """GFLOP/s of a single-precision matrix product, median of 5."""
    a = np.random.default_rng(0).random((size, size), dtype=np.float32)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - started)
    return float(2 * size**3 / 1e9 / np.median(times))


PARTS = {"tifu-knn": tifu, "tifu-knn by scikit-learn": tifu_by_scikit_learn, "ease": ease}


if __name__ == "__main__":
    main()
