"""Offers for everybody as Parquet files: whole, the same as predict's, and begun only once."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from nextbuy.errors import DamagedError, ResumeError, RunLockedError
from nextbuy.predictor import Predictor, PredictorConfig
from nextbuy.predictor.everybody import MANIFEST, BlockScorer, ScoreRequest, score_everybody
from nextbuy.progress import SilentProgress
from nextbuy.splitting.rules import Rules
from nextbuy.storage import StorageError, read_json
from nextbuy.training.checkpoint import run_lock
from tests.shop import shop_log


@pytest.fixture(scope="module")
def predictor():
    return Predictor.fit(shop_log(40), config=PredictorConfig(models=("markov", "popularity")))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 12 users: the last has 4."""
    monkeypatch.setattr("nextbuy.predictor.answers._MOST_USERS", 3)


def scorer_of(predictor, **asked):
    return BlockScorer.of(predictor, predictor.histories, ScoreRequest(**asked))


def parts(folder):
    return sorted(path.name for path in folder.glob("*.parquet"))


class StopsAfter(SilentProgress):
    def __init__(self, blocks):
        self._left = blocks

    def advance(self, units, facts):
        self._left -= units
        if self._left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("asked", [
    {"k": 3}, {"k": 1, "model": "popularity"}, {"k": 4, "rules": Rules(exclude=("tea",))},
])  # fmt: skip
def test_the_parts_are_together_what_predict_says(predictor, tmp_path, asked):
    scored = score_everybody(scorer_of(predictor, **asked), tmp_path, bundle_hash="b")
    found = pl.concat([pl.read_parquet(tmp_path / name) for name in parts(tmp_path)])
    assert found.equals(predictor.predict(predictor.histories, **asked))
    assert (scored.parts, scored.users, scored.rows) == (4, 40, found.height)
    told = read_json(tmp_path / MANIFEST)
    assert sorted(told["files"]) == parts(tmp_path)
    assert sum(one["rows"] for one in told["files"].values()) == found.height


def test_what_was_stopped_goes_on_and_scores_no_block_twice(predictor, tmp_path):
    scorer = scorer_of(predictor)
    with pytest.raises(KeyboardInterrupt):
        score_everybody(scorer, tmp_path, bundle_hash="b", progress=StopsAfter(2))
    assert parts(tmp_path) == ["part-000000.parquet", "part-000001.parquet"]
    assert not (tmp_path / MANIFEST).exists()
    before = [(tmp_path / name).stat().st_mtime_ns for name in parts(tmp_path)]
    assert score_everybody(scorer, tmp_path, bundle_hash="b").resumed == 2
    assert [(tmp_path / name).stat().st_mtime_ns for name in parts(tmp_path)][:2] == before
    whole = score_everybody(scorer, tmp_path.with_name("whole"), bundle_hash="b")
    assert whole.parts == 4
    assert (tmp_path / MANIFEST).read_bytes() == (
        tmp_path.with_name("whole") / MANIFEST
    ).read_bytes()


def test_a_killed_command_leaves_whole_parts_and_goes_on(predictor, tmp_path):
    predictor.save(tmp_path / "bundle")
    code = (
        "import sys; from nextbuy.predictor import answers; answers._MOST_USERS = 3\n"
        "from nextbuy.cli.app import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "score", tmp_path / "bundle", "--out", tmp_path / "o"]
    environment = {**os.environ, "NEXTBUY_FAILPOINT": "after_part:3"}
    assert subprocess.run(command, check=False, env=environment).returncode == -signal.SIGKILL
    assert len(parts(tmp_path / "o")) == 3
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 of 4 files were there already" in done.stdout
    found = pl.read_parquet(tmp_path / "o" / "*.parquet")
    assert found.equals(predictor.predict(predictor.histories, k=10))


def test_a_folder_of_another_request_is_refused_and_the_difference_named(predictor, tmp_path):
    score_everybody(scorer_of(predictor, k=3), tmp_path, bundle_hash="b")
    with pytest.raises(ResumeError, match=r"begun differently: k: was 3, asked 4"):
        score_everybody(scorer_of(predictor, k=4), tmp_path, bundle_hash="b")
    with pytest.raises(ResumeError, match=r"bundle: was 'b', asked 'c'"):
        score_everybody(scorer_of(predictor, k=3), tmp_path, bundle_hash="c")


def test_files_of_somebody_else_are_not_taken_for_parts(predictor, tmp_path):
    (tmp_path / "part-000000.parquet").write_bytes(b"mine")
    with pytest.raises(ResumeError, match="was not written by this command"):
        score_everybody(scorer_of(predictor), tmp_path, bundle_hash="b")
    assert (tmp_path / "part-000000.parquet").read_bytes() == b"mine"


def test_a_damaged_part_is_named(predictor, tmp_path):
    score_everybody(scorer_of(predictor), tmp_path, bundle_hash="b")
    (tmp_path / "part-000002.parquet").write_bytes(b"PAR1")
    with pytest.raises(DamagedError, match=r"part-000002.parquet cannot be read.*Delete it"):
        score_everybody(scorer_of(predictor), tmp_path, bundle_hash="b")


def test_C16_a_full_disk_keeps_the_parts_before_and_leaves_nothing_half(
    predictor, tmp_path, monkeypatch
):
    scorer, calls = scorer_of(predictor), []
    original = os.fsync

    def full_later(descriptor):
        calls.append(descriptor)
        if len(calls) > 4:  # the request takes two
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(descriptor)

    monkeypatch.setattr(os, "fsync", full_later)
    with pytest.raises(StorageError, match="No space left on device"):
        score_everybody(scorer, tmp_path, bundle_hash="b")
    monkeypatch.undo()
    monkeypatch.setattr("nextbuy.predictor.answers._MOST_USERS", 3)
    assert len(parts(tmp_path)) == 2
    assert not list(Path(tmp_path / "_run").glob("tmp-*"))
    assert score_everybody(scorer, tmp_path, bundle_hash="b").resumed == 2


def test_two_at_once_in_one_folder_is_one_too_many(predictor, tmp_path):
    with run_lock(tmp_path / "_run"), pytest.raises(RunLockedError):
        score_everybody(scorer_of(predictor), tmp_path, bundle_hash="b")
