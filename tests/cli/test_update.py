"""A new version takes over only if it is not worse, and the old one can come back."""

import contextlib
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from nextbuy import storage
from nextbuy.bundle import load_bundle
from nextbuy.cli.app import main
from nextbuy.service.purchases import LivePurchase
from nextbuy.service.store.opening import open_store
from nextbuy.service.store.protocol import Submission
from tests.shop import EPOCH

MODELS = ("--models", "popularity")
ITEMS = ("tea", "milk", "bread", "rice", "soap", "0042")
SHARES = (0.50, 0.25, 0.12, 0.06, 0.04, 0.03)
CUT = EPOCH + timedelta(days=60)


def drawn(num_users=80, seed=0):
    """Ninety days in which everybody buys every third day or so, by the same shares."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        days = np.cumsum(rng.gamma(3.0, 1.0, 60))
        items = rng.choice(ITEMS, len(days), p=SHARES)
        moments = [EPOCH + timedelta(days=day) for day in days if day < 90]
        rows += [(f"u{user}", item, at) for item, at in zip(items, moments, strict=False)]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Ninety days; the first sixty; and both with the sixty days' best sellers the worst."""
    folder = tmp_path_factory.mktemp("logs")
    whole, is_past = drawn(), pl.col("timestamp") < CUT
    turned = pl.col("item_id").replace_strict(ITEMS, ITEMS[::-1])
    shuffled = whole.with_columns(
        pl.when(is_past).then(turned).otherwise("item_id").alias("item_id")
    )
    paths = {
        "whole": whole,
        "early": whole.filter(is_past),
        "shuffled": shuffled,
        "wrong": shuffled.filter(is_past),
    }
    for name, frame in paths.items():
        frame.write_csv(folder / f"{name}.csv")
    return {name: folder / f"{name}.csv" for name in paths}


@pytest.fixture(scope="module")
def trained(logs, tmp_path_factory):
    """A bundle of a log, trained once."""
    folder = tmp_path_factory.mktemp("trained")

    def of(name):
        if not (folder / name).exists():
            arguments = ["train", logs[name], "--out", folder / name, *MODELS, "--json"]
            with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as left:
                main([str(argument) for argument in arguments])
            assert left.value.code == 0
        return folder / name

    return of


@pytest.fixture
def bundle(trained, tmp_path):
    """A copy of it."""
    return lambda name: shutil.copytree(trained(name), tmp_path / "b")


def latest(folder):
    return storage.latest(folder / "versions")


def test_a_better_version_takes_over_and_can_be_taken_back(logs, bundle, run):
    folder = bundle("wrong")
    code, out, _ = run("update", folder, "--from", logs["whole"], "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["champion"], found["challenger"], found["promoted"]) == ("000001", "000002", True)
    assert latest(folder) == "000002"
    gains = {name: each["gain"] for name, each in found["comparison"]["metrics"].items()}
    # The divergence of the shares from the same in reverse: the sum of p ln(p / q).
    expected = sum(p * math.log(p / q) for p, q in zip(SHARES, SHARES[::-1], strict=True))
    assert expected == pytest.approx(1.749, abs=1e-3)
    assert gains["loss"]["low"] < expected < gains["loss"]["high"]
    assert gains["ndcg@10"]["low"] > 0
    code, out, _ = run("update", folder, "--rollback", "--json")
    assert (code, json.loads(out)) == (0, {"before": "000002", "now": "000001"})
    assert latest(folder) == "000001"
    load_bundle(folder / "versions" / "000002")  # is kept
    code, _, err = run("update", folder, "--rollback")
    assert code == 1
    assert "there is none before it" in err


def test_a_worse_version_is_kept_but_does_not_answer(logs, bundle, run):
    folder = bundle("early")
    code, out, _ = run("update", folder, "--from", logs["shuffled"])
    words = " ".join(out.split())
    assert code == 0
    assert latest(folder) == "000001"
    assert "version 000001 stays: its gain in loss is -" in words
    assert "whose low end must be above -0.0200" in words
    assert "which neither has learnt from" in words
    load_bundle(folder / "versions" / "000002")


def test_back_is_past_a_version_that_never_answered(logs, bundle, run):
    folder = bundle("early")
    assert run("update", folder, "--from", logs["shuffled"])[0] == 0
    first = latest(folder)
    assert run("update", folder, "--from", logs["whole"], "--json")[0] == 0
    assert (first, latest(folder)) == ("000001", "000003")
    assert run("train", logs["whole"], "--out", folder, *MODELS)[0] == 0
    assert latest(folder) == "000004"
    for expected in ("000003", "000001"):
        assert run("update", folder, "--rollback")[0] == 0
        assert latest(folder) == expected


def test_only_what_came_after_the_champions_last_purchase_is_asked(logs, bundle, run):
    folder = bundle("early")
    code, out, _ = run("update", folder, "--from", logs["whole"], "--json")
    whole = pl.read_csv(logs["whole"], try_parse_dates=True)
    last = pl.read_csv(logs["early"], try_parse_dates=True)["timestamp"].max()
    since = json.loads(out)["comparison"]["since"]
    assert code == 0
    assert since > last.timestamp() * 1e6
    later = whole.filter(pl.col("timestamp").dt.epoch("us") >= since)
    known = whole.filter(pl.col("timestamp").dt.epoch("us") < since)["user_id"]
    asked = later.filter(pl.col("user_id").is_in(known.implode()))["user_id"].n_unique()
    assert json.loads(out)["comparison"]["num_cases"] == asked


def test_a_store_adds_to_what_the_bundle_knows(logs, bundle, tmp_path, run):
    """The file that the bundle was trained from is not needed: sixty days of it, thirty live."""
    folder, url = bundle("early"), f"sqlite:///{tmp_path / 'live.db'}"
    whole = pl.read_csv(logs["whole"], try_parse_dates=True)
    late = whole.filter(pl.col("timestamp") >= CUT)
    store = open_store(url)
    purchases = tuple(
        LivePurchase(user_id=user, item_id=item, timestamp=round(at.timestamp() * 1e6))
        for user, item, at in late.iter_rows()
    )
    store.write([Submission(key="k", digest=b"d", purchases=purchases, received=0)])
    store.close()
    code, out, err = run("update", folder, "--from", f"store:{url}", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["challenger"] == "000002"
    new = load_bundle(folder / "versions" / "000002")
    assert new.facts["store_sequence"] == late.height
    assert new.histories.num_purchases == whole.height
    assert new.run["source"] == f"store:{url}"
    assert (
        new.facts["read_options"] == load_bundle(folder / "versions/000001").facts["read_options"]
    )


def test_nothing_new_changes_nothing(logs, bundle, run):
    folder = bundle("early")
    code, out, _ = run("update", folder, "--from", logs["early"], "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["challenger"], found["promoted"]) == (None, False)
    assert "after the champion's last purchase" in found["reason"]
    assert sorted(p.name for p in (folder / "versions").iterdir()) == ["000001", "LATEST"]


def test_a_command_that_says_neither_or_both_is_refused(logs, bundle, run):
    folder = bundle("early")
    for arguments in ((), ("--from", logs["early"], "--rollback")):
        code, _, err = run("update", folder, *arguments)
        assert code == 1
        assert "one of the two" in err


@pytest.mark.parametrize(
    ("failpoint", "expected"),
    [("after_rename", "000001"), ("mid_latest", "000001")],
)
def test_a_kill_in_between_leaves_a_whole_version(logs, bundle, run, failpoint, expected):
    folder = bundle("wrong")
    command = [sys.executable, "-m", "nextbuy", "update", str(folder), "--from", str(logs["whole"])]
    environment = os.environ | {"NEXTBUY_FAILPOINT": failpoint}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert latest(folder) == expected
    load_bundle(folder)
    assert run("predict", folder, "--user", "u1", "--json")[0] == 0


def turning(num_users=150):
    """What follows an item changes after sixty days: first the next one, then the one before."""
    rng = np.random.default_rng(5)
    rows = []
    for user in range(num_users):
        at, day = int(rng.integers(len(ITEMS))), rng.uniform(0, 3)
        while day < 90:
            rows.append((f"u{user}", ITEMS[at], EPOCH + timedelta(days=day)))
            at = (at + (1 if day < 60 else -1)) % len(ITEMS)
            day += rng.gamma(3.0, 1.0)
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def test_a_network_that_goes_on_learns_what_has_changed(tmp_path, run):
    """Choices are made on what the champion has not learnt, and the newest purchases decide."""
    log, settings = turning(), tmp_path / "train.toml"
    early = log.filter(pl.col("timestamp") < CUT)
    log.write_parquet(tmp_path / "whole.parquet")
    early.write_parquet(tmp_path / "early.parquet")
    settings.write_text(
        "models = ['popularity', 'gru']\nblend = false\nrefit_full = true\n"
        "[options.gru.training]\ntokens = 256\nlearning_rate = 0.01\n"
    )
    folder = tmp_path / "b"
    arguments = ["--config", settings]
    assert run("train", tmp_path / "early.parquet", "--out", folder, *arguments)[0] == 0
    first = load_bundle(folder / "versions" / "000001")
    last = int(first.histories.times.max())
    assert first.facts["protocol"]["learned_until"] == last + 1
    code, out, err = run(
        "update", folder, "--from", tmp_path / "whole.parquet", "--incremental", "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["promoted"]
    late = log.filter(pl.col("timestamp") >= CUT)["timestamp"].sort().dt.epoch("us")
    assert found["comparison"]["since"] == pytest.approx(int(late.median()), abs=2)
    assert found["comparison"]["metrics"]["loss"]["gain"]["low"] > 0.5
    new = load_bundle(folder / "versions" / "000002")
    assert new.histories.num_purchases == log.height
    assert new.facts["protocol"]["learned_until"] == late.max() + 1
    assert "went on from those of version 000001." in new.facts["protocol"]["description"]
    code, out, _ = run("predict", folder, "--user", "u1", "--k", "1", "--model", "gru", "--json")
    bought = log.filter(pl.col("user_id") == "u1").sort("timestamp")["item_id"][-1]
    expected = ITEMS[(ITEMS.index(bought) - 1) % len(ITEMS)]
    assert json.loads(out)["predictions"][0]["item_id"] == expected
