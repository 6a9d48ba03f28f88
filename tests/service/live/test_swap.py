"""A new version takes over whole, and a broken one not at all."""

import asyncio
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from nextbuy import storage
from nextbuy.errors import BundleError, ModelUnavailableError
from nextbuy.service.live.bundles import LiveBundles
from nextbuy.service.live.protocol import Question
from tests.service.live.memory_store import MemoryStore
from tests.service.live.shops import NOW, bought, full_log, save


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two versions that answer differently: the second learnt from other customers."""
    folder = tmp_path_factory.mktemp("bundles")
    save(folder, full_log(60))
    save(folder, full_log(30), models=("popularity",))
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "bundles")


@pytest.fixture
def live(folder):
    model = LiveBundles(folder, MemoryStore(), clock=lambda: NOW)
    yield model
    model.close()


def ask(live, *questions):
    return asyncio.run(live.predict(questions))


def test_without_a_bundle_nothing_is_predicted_and_the_first_swap_changes_that(folder, tmp_path):
    live = LiveBundles.open(tmp_path / "nothing yet", MemoryStore(), clock=lambda: NOW)
    assert live.version is None
    assert live.facts() == {"version": None}
    with pytest.raises(ModelUnavailableError, match="No bundle"):
        ask(live, Question(user_id="u1"))
    shutil.copytree(folder, tmp_path / "nothing yet")
    assert live.swap("latest") == "000002"
    assert ask(live, Question(user_id="u1"))[0].version == "000002"


def test_a_swap_changes_who_answers_and_keeps_what_was_bought(live):
    store = live._store
    live.swap("000001")
    (before,) = ask(live, Question(user_id="u1"))
    live.bought(store.add(bought("u1", "0042", 95)))
    live.swap("000002")
    (after,) = ask(live, Question(user_id="u1"))
    assert (before.version, after.version) == ("000001", "000002")
    assert (before.after_sequence, after.after_sequence) == (0, 1)
    assert before.offers != after.offers
    assert live.history("u1", 1).purchases[0].sequence == 1


NAMES = ("../x", "..", ".", "", "/etc", "000001/", "a\0b", "A", "x" * 65, "..%252f", "\\..\\x",
         "\u202e1", "000001/../000002", "latest/x")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_M12_only_names_of_versions_are_names(live, name):
    live.swap("000001")
    with pytest.raises(BundleError):
        live.swap(name)
    assert live.version == "000001"


def test_M12_a_link_out_of_the_folder_is_none(live, folder, tmp_path):
    shutil.move(folder / "versions" / "000002", tmp_path / "elsewhere")
    (folder / "versions" / "000003").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="names no version"):
        live.swap("000003")


def cut_weights(version):
    path = next(version.glob("models/popularity/weights.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])


def drop_catalog(version):
    (version / "catalog.parquet").unlink()


def add_file(version):
    (version / "surprise.py").write_text("print()", encoding="utf-8")


def signed(version):
    """A manifest that says what is there."""
    path = version / storage.MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    files = [p for p in version.rglob("*") if p.is_file()]
    manifest["files"] = {
        p.relative_to(version).as_posix(): storage._entry(p) for p in sorted(files)
    }
    storage.write_json(path, manifest)


def infinite_weights(version):
    path = next(version.glob("models/popularity/weights.safetensors"))
    arrays = storage.read_arrays(path)
    arrays["log_popularity"][0] = np.nan
    storage.write_arrays(path, arrays)
    signed(version)


def wild_facts(version):
    path = version / "nextbuy.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["facts"]["basket_kind"] = "bag"
    storage.write_json(path, stored)
    signed(version)


def no_leaderboard(version):
    path = version / "nextbuy.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["facts"]["leaderboard"] = []
    storage.write_json(path, stored)
    signed(version)


DAMAGES = (cut_weights, drop_catalog, add_file, infinite_weights, wild_facts, no_leaderboard)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_M13_a_broken_version_leaves_the_old_one_in_place(live, folder, damage):
    live.swap("000001")
    before = ask(live, Question(user_id="u1"))
    damage(folder / "versions" / "000002")
    with pytest.raises(BundleError) as refused:
        live.swap("000002")
    assert "000002" in str(refused.value)
    assert str(folder) not in str(refused.value)
    assert live.version == "000001"
    assert ask(live, Question(user_id="u1")) == before


def test_M13_a_service_that_begins_on_a_broken_version_says_how_to_go_back(folder):
    cut_weights(folder / "versions" / "000002")
    with pytest.raises(BundleError, match=f"weights.*nextbuy update {folder} --rollback"):
        LiveBundles.open(folder, MemoryStore())


def test_the_log_says_which_version_answers_and_where_a_refused_one_lies(live, folder, caplog):
    caplog.set_level("INFO", "nextbuy.service.live")
    live.swap("000001")
    assert f"version 000001 of {folder} answers" in caplog.text
    cut_weights(folder / "versions" / "000002")
    with pytest.raises(BundleError):
        live.swap("latest")
    assert "version latest was refused, 000001 stays" in caplog.text
    assert str(folder / "versions" / "000002") in caplog.text


@pytest.mark.parametrize("name", [".", "a", "versions"])
def test_a_folder_with_a_short_name_changes_no_other_word(folder, monkeypatch, name):
    shutil.move(folder, folder.parent / "a")
    monkeypatch.chdir(folder.parent / "a" if name == "." else folder.parent)
    if name == "versions":
        shutil.move("a", "versions")
    live = LiveBundles(Path(name), MemoryStore(), clock=lambda: NOW)
    cut_weights(Path(name) / "versions" / "000002")
    with pytest.raises(BundleError) as refused:
        live.swap("latest")
    said = str(refused.value)
    assert said.startswith("The bundle cannot be loaded. versions/000002/models/popularity/weights")
    assert str(folder.parent) not in said
    with pytest.raises(BundleError, match="no version 000009 in the folder that is served"):
        live.swap("000009")
    live.close()


@pytest.mark.parametrize("latest", [None, '"000009"\n', "000009", "{}"])
def test_S36_where_the_folder_lies_is_not_said_to_whoever_swaps(live, folder, latest):
    live.swap("000001")
    path = folder / "versions" / storage.LATEST
    path.unlink() if latest is None else path.write_text(latest, encoding="utf-8")
    for name in ("latest", "000009", "../000001"):
        with pytest.raises(BundleError) as refused:
            live.swap(name)
        assert str(folder.parent) not in str(refused.value)
        assert str(folder.resolve().parent) not in str(refused.value)


def test_M13_a_version_that_is_not_there_is_told_by_name(live):
    live.swap("000001")
    with pytest.raises(BundleError, match="no version 000009"):
        live.swap("000009")


def test_M14_every_answer_under_swaps_is_whole_and_of_one_version(live):
    live.swap("000001")
    asked = Question(user_id="u1", k=3)
    expected = {"000001": ask(live, asked)[0].offers}
    live.swap("000002")
    expected["000002"] = ask(live, asked)[0].offers
    assert expected["000001"] != expected["000002"]
    stop = threading.Event()

    def swap_on():
        while not stop.is_set():
            for name in expected:
                live.swap(name)

    async def ask_on():
        answers = []
        while len(answers) < 240 or {first.version for first, _ in answers} != set(expected):
            answers += await asyncio.gather(*(live.predict([asked, asked]) for _ in range(4)))
        return answers

    swapping = threading.Thread(target=swap_on)
    swapping.start()
    answers = asyncio.run(ask_on())
    stop.set()
    swapping.join()
    assert len(answers) >= 240
    for first, second in answers:
        assert first.version == second.version
        assert first.offers == second.offers == expected[first.version]


def test_M15_the_folder_may_vanish_under_the_server(live, folder):
    live.swap("000001")
    before = ask(live, Question(user_id="u1"))
    for path in (folder / "versions" / "000001").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    shutil.rmtree(folder)
    assert ask(live, Question(user_id="u1")) == before
    assert live.history("u1", 5).purchases
    assert live.forecast(["u1"])[0].height == 1
