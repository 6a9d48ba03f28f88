"""A bundle loads whole and as it was saved, or not at all, with the reason."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nextbuy import storage
from nextbuy.bundle import Bundle, load_bundle, save_bundle
from nextbuy.data.histories import Histories
from nextbuy.errors import BundleError
from nextbuy.models.lstm_rnn import LstmRnn, LstmRnnConfig
from nextbuy.models.personal_frequency import PersonalFrequency
from nextbuy.models.popularity import Popularity
from nextbuy.models.protocol import FitOptions
from nextbuy.testing.contract import V, small_catalog, small_train, small_validation

RELEASED = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def bundle():
    models = {
        "popularity": Popularity(),
        "personal-frequency": PersonalFrequency(),
        "lstm-rnn": LstmRnn(LstmRnnConfig(embedding_size=4, lstm_size=8, rnn_size=8)),
    }
    train = small_train()
    for model in models.values():
        model.fit(train, small_validation(), small_catalog(V), FitOptions(epochs=1))
    return Bundle(
        catalog=small_catalog(V), histories=train, models=models, facts={"loss": float("nan")}
    )


@pytest.fixture
def saved(bundle, tmp_path):
    """The folder of one version."""
    return save_bundle(tmp_path, bundle)


def test_a_bundle_comes_back_as_it_was(bundle, saved, tmp_path):
    loaded = load_bundle(tmp_path)
    assert saved == tmp_path / "versions" / "000001"
    assert loaded.catalog.table.equals(bundle.catalog.table)
    for name in ("items", "times", "baskets", "offsets"):
        found, expected = (getattr(b.histories, name) for b in (loaded, bundle))
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    assert loaded.histories.user_ids.to_list() == bundle.histories.user_ids.to_list()
    assert loaded.facts == {"loss": None}  # JSON has no NaN
    as_of = np.full(len(bundle.histories), 10**15)
    for name, model in bundle.models.items():
        before = model.log_probabilities(bundle.histories, as_of)
        after = loaded.models[name].log_probabilities(bundle.histories, as_of)
        assert before.tobytes() == after.tobytes()


def test_each_save_is_a_version_and_the_latest_is_loaded(bundle, saved, tmp_path):
    newer = Bundle(
        catalog=bundle.catalog, histories=bundle.histories,
        models={"popularity": bundle.models["popularity"]}, facts={},
    )  # fmt: skip
    assert save_bundle(tmp_path, newer).name == "000002"
    assert set(load_bundle(tmp_path).models) == {"popularity"}
    assert set(load_bundle(saved).models) == set(bundle.models)


def test_without_a_bundle_it_says_how_to_make_one(tmp_path):
    with pytest.raises(BundleError, match="nextbuy train DATA --out"):
        load_bundle(tmp_path)


def test_M01_a_file_cut_short_is_refused(saved, tmp_path):
    for path in sorted(p for p in saved.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        for length in (0, 1, len(whole) // 2, len(whole) - 2):
            path.write_bytes(whole[:length])
            with pytest.raises(BundleError):
                load_bundle(tmp_path)
        path.write_bytes(whole)
    load_bundle(tmp_path)


def test_M02_one_flipped_bit_in_any_file_is_refused(saved, tmp_path):
    rng = np.random.default_rng(0)
    for path in sorted(p for p in saved.rglob("*") if p.is_file() and p.name != storage.MANIFEST):
        whole = path.read_bytes()
        for position in rng.integers(0, len(whole), 5):
            changed = bytearray(whole)
            changed[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(changed)
            with pytest.raises(BundleError, match=path.name):
                load_bundle(tmp_path)
        path.write_bytes(whole)
    load_bundle(tmp_path)


class Boom:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("file", ["models/lstm-rnn/weights.safetensors", "histories.safetensors"])
def test_M03_a_pickle_under_another_name_is_refused_and_never_run(
    saved, tmp_path, file, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (saved / file).write_bytes(pickle.dumps(Boom()))
    sign_again(saved)
    with pytest.raises(BundleError, match="safetensors"):
        load_bundle(tmp_path)
    (saved / file).write_bytes((saved / file).read_bytes() + pickle.dumps(Boom()))
    with pytest.raises(BundleError):
        load_bundle(tmp_path)
    assert not (tmp_path / "exploded").exists()


def sign_again(folder):
    """Make the manifest fit what lies there now, as an attacker would."""
    manifest = json.loads((folder / storage.MANIFEST).read_text())
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != storage.MANIFEST]
    manifest["files"] = {
        str(p.relative_to(folder)): {"size": p.stat().st_size, "sha256": sha256(p)} for p in files
    }
    storage.write_json(folder / storage.MANIFEST, manifest)


def sha256(path):
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def change_json(path, **changes):
    storage.write_json(path, storage.read_json(path) | changes)


def change_arrays(path, **changes):
    stored = storage.read_arrays(path)
    storage.write_arrays(path, stored | {k: f(stored) for k, f in changes.items()})


WEIGHTS = "models/lstm-rnn/weights.safetensors"
WRONG = {
    "M07 future": (lambda f: change_json(f / "nextbuy.json", format=99), "format 99.*format 1"),
    "M06 keys": (lambda f: change_json(f / "nextbuy.json", more=1), "more"),
    "M06 kind": (lambda f: change_json(f / "nextbuy.json", models=[]), "wrong kind"),
    "M06 time": (lambda f: change_json(f / "nextbuy.json", time_kind="tea"), "wrong kind"),
    "M09 sizes": (
        lambda f: change_arrays(f / WEIGHTS, **{"dense.bias": lambda a: a["dense.bias"][:-1]}),
        "shapes",
    ),
    "M09 twice": (
        lambda f: (
            pl.read_parquet(f / "catalog.parquet")
            .with_columns(item_id=pl.lit("same"))
            .write_parquet(f / "catalog.parquet")
        ),
        "catalog",
    ),
    "M10 nan": (
        lambda f: change_arrays(
            f / WEIGHTS, **{"dense.bias": lambda a: a["dense.bias"] + np.float32("nan")}
        ),
        "finite",
    ),
    "M09 item": (
        lambda f: change_arrays(f / "histories.safetensors", items=lambda a: a["items"] + 5),
        "the catalog has 9",
    ),
    "offsets": (
        lambda f: change_arrays(f / "histories.safetensors", offsets=lambda a: a["offsets"] + 1),
        "do not fit together",
    ),
    "users": (
        lambda f: pl.DataFrame({"user_id": ["only one"]}).write_parquet(f / "users.parquet"),
        "do not fit together",
    ),
    "users unreadable": (lambda f: (f / "users.parquet").write_bytes(b"PAR1 no"), "users.parquet"),
    "users of another kind": (
        lambda f: pl.DataFrame({"name": ["x"]}).write_parquet(f / "users.parquet"),
        "users.parquet",
    ),
    "M12 name": (
        lambda f: change_json(f / "nextbuy.json", models={"../../x": "popularity"}),
        "not a safe name",
    ),
    "M17 import": (
        lambda f: change_json(f / "nextbuy.json", models={"popularity": "os.system"}),
        "No model is called 'os.system'",
    ),
    "M17 config": (
        lambda f: change_json(f / "models/popularity/config.json", loader="__import__('os')"),
        "loader",
    ),
    "swapped": (
        lambda f: change_json(f / "nextbuy.json", models={"lstm-rnn": "popularity"}),
        "lstm-rnn",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_a_correct_manifest_covers_is_checked_for_sense_too(saved, tmp_path, wrong):
    change, says = WRONG[wrong]
    change(saved)
    sign_again(saved)
    with pytest.raises(BundleError, match=says):
        load_bundle(tmp_path)


def test_M04_M11_links_and_what_is_no_file_are_refused(saved, tmp_path):
    target = saved / "models" / "popularity" / "config.json"
    content = target.read_bytes()
    outside = tmp_path / "outside.json"
    outside.write_bytes(content)
    target.unlink()
    target.symlink_to(outside)
    with pytest.raises(BundleError, match="neither a regular file"):
        load_bundle(tmp_path)
    target.unlink()
    with pytest.raises(BundleError, match="is missing"):
        load_bundle(tmp_path)
    target.write_bytes(content)
    (saved / "models" / "notes.txt").write_text("added")
    with pytest.raises(BundleError, match=r"notes\.txt is not in the manifest"):
        load_bundle(tmp_path)


def test_M18_a_writer_that_comes_second_is_refused_and_changes_nothing(
    bundle, saved, tmp_path, monkeypatch
):
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))  # it looked before the first was done
    with pytest.raises(storage.StorageError, match="another writer was first"):
        save_bundle(tmp_path, bundle)
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "versions").glob("0*")] == ["000001"]
    load_bundle(tmp_path)


def test_M15_a_loaded_bundle_does_not_need_its_files(bundle, saved, tmp_path):
    loaded = load_bundle(tmp_path)
    shutil.rmtree(tmp_path / "versions")
    asked = Histories.from_lists([[1, 2]])
    for name, model in bundle.models.items():
        np.testing.assert_array_equal(
            loaded.models[name].log_probabilities(asked, None), model.log_probabilities(asked, None)
        )


SAVE_AGAIN = """
import sys
from pathlib import Path
from nextbuy.bundle import load_bundle, save_bundle
save_bundle(Path(sys.argv[1]), load_bundle(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("moment", ["after_tmp_write", "after_rename", "mid_latest"])
def test_T24_killed_while_publishing_the_old_version_stays_the_latest(tmp_path, bundle, moment):
    counting = Bundle(
        catalog=bundle.catalog, histories=bundle.histories,
        models={"popularity": bundle.models["popularity"]}, facts={"number": 1},
    )  # fmt: skip
    save_bundle(tmp_path, counting)
    killed = subprocess.run(
        [sys.executable, "-c", SAVE_AGAIN, str(tmp_path)],
        env=os.environ | {"NEXTBUY_FAILPOINT": moment}, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    assert storage.latest(tmp_path / "versions") == "000001"
    assert load_bundle(tmp_path).facts == {"number": 1}
    save_bundle(tmp_path, counting)
    assert storage.latest(tmp_path / "versions") in ("000002", "000003")


@pytest.mark.parametrize("release", sorted(p.name for p in RELEASED.glob("bundle-format-*")))
def test_M08_bundles_of_every_format_so_far_give_the_predictions_they_gave(release):
    loaded = load_bundle(RELEASED / release / "bundle")
    expected = json.loads((RELEASED / release / "expected.json").read_text())
    asked = Histories.from_lists(expected["histories"])
    assert set(expected["probabilities"]) == set(loaded.models)
    for name, rows in expected["probabilities"].items():
        found = np.exp(loaded.models[name].log_probabilities(asked, None))
        np.testing.assert_allclose(found, rows, atol=1e-5)
