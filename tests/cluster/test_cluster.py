"""Training and scoring by the workers of a Ray cluster of two nodes on this machine."""

import logging
import os
import signal
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest

from nextbuy.data.encoding import encode
from nextbuy.data.prepare.preparing import prepare
from nextbuy.data.prepare.survey import PrepareConfig
from nextbuy.data.sources import load_source
from nextbuy.errors import ConfigError, JoinError
from nextbuy.models.protocol import FitOptions
from nextbuy.models.registry import create
from nextbuy.predictor import Predictor, PredictorConfig
from nextbuy.predictor.everybody import MANIFEST, BlockScorer, ScoreRequest, score_everybody
from nextbuy.progress import SilentProgress
from nextbuy.splitting.choice import choose_split
from nextbuy.tuning.config import TuningConfig
from nextbuy.tuning.journal import finished_trials
from nextbuy.tuning.tune import tune
from tests.shop import shop_log
from tests.tuning.test_tune import study_in

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'nextbuy[cluster]'")
from ray.cluster_utils import Cluster  # noqa: E402

from nextbuy.cluster.blocks import RayBlocks  # noqa: E402
from nextbuy.cluster.config import ClusterConfig  # noqa: E402
from nextbuy.cluster.connecting import connected, cpus_for_each  # noqa: E402
from nextbuy.cluster.crew import Crew  # noqa: E402
from nextbuy.cluster.processes import starting_on  # noqa: E402
from nextbuy.cluster.training import RayWorkers  # noqa: E402

pytestmark = pytest.mark.xdist_group("cluster")
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}


@pytest.fixture(scope="module")
def cluster():
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_worker_niceness": "0",  # Ray's workers would wait for every other test
    }
    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    made.add_node(**NODE)
    with connected(ClusterConfig(address=made.address)):
        yield made
    made.shutdown()


@pytest.fixture(scope="module")
def split():
    encoded = encode(load_source(shop_log(120)).purchases)
    return choose_split("temporal", encoded.catalog, encoded.histories, seed=0)


def fitted(split, workers=None, *, folder=None, progress=None):
    """A small transformer, its dropout on, fitted here or by workers."""
    training = {"epochs": 3, "tokens": 64, "checkpoint_seconds": 0.0}
    model = create("transformer", training=training, dropout=0.1)
    options = FitOptions(run_folder=folder, progress=progress or SilentProgress(), workers=workers)
    where = model if workers is None else workers
    what = () if workers is None else (model,)
    return where.fit(*what, split.train, split.validation, split.catalog, options)


def processes(name):
    """Those of Ray that this test has begun, by the name that Ray gives them."""
    found = psutil.Process().children(recursive=True)
    return sorted((p for p in found if p.name().startswith(f"ray::{name}")), key=lambda p: p.pid)


class Disturbing(SilentProgress):
    """Does something after so many steps, counted over all starts."""

    def __init__(self, deeds):
        self._deeds, self._steps = deeds, 0

    def advance(self, units, facts):
        self._steps += units
        for step in [step for step in self._deeds if step <= self._steps]:
            self._deeds.pop(step)()


class DisturbingEncoding(Disturbing):
    """Counts the steps of one stage only."""

    _stage = ""

    def start(self, name, total, done=0):
        self._stage = name

    def advance(self, units, facts):
        if self._stage == "encoding":
            super().advance(units, facts)


def kill_a_block_worker():
    processes("BlockWorker")[0].kill()


def assert_equal(one, other):
    assert one.weights().keys() == other.weights().keys()
    for name, weights in one.weights().items():
        assert np.array_equal(weights, other.weights()[name]), name
    assert one.result.best_score == other.result.best_score


def test_one_worker_fits_to_the_last_bit_and_two_but_for_rounding_whatever_is_lost(
    cluster, split, tmp_path, caplog
):
    """C01 and a lost node: training ends as if nothing had been."""
    caplog.set_level(logging.WARNING)
    here = fitted(split)
    assert_equal(fitted(split, RayWorkers(ClusterConfig(workers=1))), here)
    undisturbed = fitted(split, RayWorkers(ClusterConfig(workers=2)))
    for name, weights in here.weights().items():
        np.testing.assert_allclose(undisturbed.weights()[name], weights, rtol=0, atol=2e-5)

    def lose_a_node():
        # At once: a node that leaves in peace lets its rank go on, perhaps to the end.
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        cluster.add_node(**NODE)  # for the rank whose own is lost: a node has room for one

    deeds = {3: lambda: processes("Worker")[0].send_signal(signal.SIGKILL), 25: lose_a_node}
    workers = RayWorkers(ClusterConfig(workers=2, timeout_seconds=10))
    disturbed = fitted(split, workers, folder=tmp_path / "run", progress=Disturbing(deeds))
    assert deeds == {}
    assert_equal(disturbed, undisturbed)
    assert len(workers.lost) == 2
    assert all("Rank " in one and "(pid " in one for one in workers.lost), workers.lost
    assert caplog.text.count("Training goes on from step-") == 2


def test_C06_a_worker_with_other_code_is_refused(cluster, split, monkeypatch):
    monkeypatch.setattr("nextbuy.cluster.crew.code_facts", lambda: {"code": "of this machine"})
    with pytest.raises(JoinError, match=r"Rank 0 \(pid .*has code .* instead of 'of this machine'"):
        fitted(split, RayWorkers(ClusterConfig(workers=1)))


@pytest.mark.parametrize(
    ("name", "told", "said"),
    [
        ("lstm-rnn", {"engine": "tensorflow"}, "by torch only"),
        ("gru", {"device": "cuda:1"}, "its own GPU alone"),
    ],
)
def test_what_workers_cannot_fit_is_refused_before_anything_is_read(name, told, said):
    config = PredictorConfig(models=(name,), options={name: told})
    with pytest.raises(ConfigError, match=said):
        Predictor.fit("nowhere.csv", config=config, workers=RayWorkers(ClusterConfig()))


def test_a_cluster_that_is_too_small_says_what_there_is(cluster):
    with pytest.raises(ConfigError, match="999 workers need a processor each"):
        cpus_for_each(999, 1)


def test_no_more_than_one_start_in_vain_if_so_told(cluster, split, monkeypatch):
    def killed(self, *_):
        os.kill(int(self._names[0].split("pid ")[1].split()[0]), signal.SIGKILL)
        return 0.0

    monkeypatch.setattr(Crew, "_listening", lambda self: (killed(self), ("", 0))[1])
    workers = RayWorkers(ClusterConfig(workers=1, most_restarts=0))
    with pytest.raises(Exception, match=r"Rank 0 \(pid \d+ on .*died.*begun again 0 times"):
        fitted(split, workers)


def test_a_log_is_prepared_to_the_same_bytes_even_when_a_worker_dies(cluster, tmp_path):
    shop_log(60).write_parquet(tmp_path / "log.parquet")
    config = PrepareConfig(buckets=8)
    here = prepare(tmp_path / "log.parquet", tmp_path / "here", config)
    there = prepare(
        tmp_path / "log.parquet", tmp_path / "there", config,
        progress=DisturbingEncoding({3: kill_a_block_worker}),
        where=RayBlocks(ClusterConfig(workers=2)),
    )  # fmt: skip
    assert there.encoded.histories.num_purchases == shop_log(60).height
    names = [p.relative_to(here.folder) for p in here.folder.rglob("*") if p.is_file()]
    assert len(names) > 5
    for name in names:
        assert (here.folder / name).read_bytes() == (there.folder / name).read_bytes(), name
    there.verify()


def test_trials_are_fitted_on_the_cluster_and_one_that_is_lost_is_tried_again(cluster, tmp_path):
    told = []

    def say(line):
        told.append(line)
        if len(told) == 3:  # the default is fitted here, and one there is finished
            processes("Relay")[0].kill()

    settings = {"model": "gru", "epochs": 1}
    start = starting_on(ClusterConfig(workers=2))
    found = tune(
        shop_log(), tmp_path / "two", config=TuningConfig.of(**settings, trials=6, workers=2),
        start=start, say=say,
    )  # fmt: skip
    assert found.trials["fail"] == 0
    assert found.trials["complete"] + found.trials["pruned"] == 6
    one = tune(shop_log(), tmp_path / "one", config=TuningConfig.of(**settings, trials=2))
    of_two, of_one = (
        {t.number: t for t in finished_trials(study_in(tmp_path / n))} for n in ("two", "one")
    )
    assert of_two[1].params == of_one[1].params  # the first draw knows the default alone
    assert of_two[1].value == of_one[1].value
    assert one.default["validation"] == found.default["validation"]
    assert processes("Relay") == []


def test_a_search_says_when_the_cluster_is_too_small(cluster, tmp_path):
    config = TuningConfig.of(model="markov", trials=9, workers=9)
    with pytest.raises(ConfigError, match="9 workers need a processor each"):
        tune(shop_log(), tmp_path, config=config, start=starting_on(ClusterConfig(workers=9)))


def test_C06_processes_and_blocks_of_other_code_are_refused(cluster, monkeypatch):
    for module in ("processes", "blocks"):
        monkeypatch.setattr(f"nextbuy.cluster.{module}.code_facts", lambda: {"code": "of this one"})
    said = "A worker on .* has code .* instead of 'of this one'. Install the same nextbuy"
    with pytest.raises(JoinError, match=said):
        starting_on(ClusterConfig(workers=1))(["-c", "pass"], 1)
    with pytest.raises(JoinError, match=said):
        list(RayBlocks(ClusterConfig(workers=1))(abs, [1]))


def test_no_work_is_done_at_once(cluster):
    assert list(RayBlocks(ClusterConfig(workers=2))(abs, [])) == []


def test_scoring_is_that_of_predict_even_when_a_worker_dies(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("nextbuy.predictor.answers._MOST_USERS", 4)
    config = PredictorConfig(models=("markov", "personal-frequency"))
    predictor = Predictor.fit(shop_log(60), config=config)
    scorer = BlockScorer.of(predictor, predictor.histories, ScoreRequest(k=3))
    blocks = RayBlocks(ClusterConfig(workers=2, timeout_seconds=10))
    scored = score_everybody(
        scorer, tmp_path / "offers", bundle_hash="b",
        scoring=lambda scorer, numbers: blocks(scorer.offers, numbers),
        progress=Disturbing({1: kill_a_block_worker}),
    )  # fmt: skip
    whole = pl.read_parquet(tmp_path / "offers" / "part-*.parquet")
    assert whole.equals(predictor.predict(predictor.histories, k=3))
    assert (scored.users, scored.rows) == (60, whole.height)
    score_everybody(scorer, tmp_path / "here", bundle_hash="b")
    for path in Path(tmp_path / "here").glob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "offers" / path.name).read_bytes()
    assert (tmp_path / "offers" / MANIFEST).read_bytes() == (
        tmp_path / "here" / MANIFEST
    ).read_bytes()
