"""The model in a process of its own: the same answers, whatever becomes of the process."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from unittest.mock import patch

import numpy as np
import pytest

from nextbuy.predictor import answers
from nextbuy.service.live.beside import ModelBeside
from nextbuy.service.live.bundles import LiveBundles, LiveOptions
from nextbuy.service.live.frames import receive, send
from nextbuy.service.live.protocol import Question
from nextbuy.splitting.rules import Rules
from tests.service.live.memory_store import MemoryStore
from tests.service.live.shops import COUNTING, NOW, TINY, bought, full_log, save

MADE_UP = tuple(bought("", item, day) for day, item in ((3, "tea"), (9, "milk"), (12, "tea")))
QUESTIONS = (
    Question(user_id="u1", k=3),
    Question(user_id="nobody", k=5),
    Question(history=MADE_UP, k=4, explain=True),
    Question(history=MADE_UP, k=4, rules=Rules(exclude=("tea",))),
    Question(user_id="u2", k=2, explain=True, as_of=NOW - 50 * 86_400_000_000),
    Question(user_id="u3", rules=Rules(per_platform=1)),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of a network and two that count, blended."""
    folder = tmp_path_factory.mktemp("bundle")
    save(folder, full_log(), epochs=1, models=(*COUNTING, "lstm-rnn"), options=TINY)
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Of a network alone."""
    folder = tmp_path_factory.mktemp("network")
    save(folder, full_log(), epochs=1, models=("lstm-rnn",), options=TINY)
    return folder


@pytest.fixture(scope="module")
def beside(folder):
    live = LiveBundles.open(
        folder, MemoryStore(), clock=lambda: NOW, options=LiveOptions(beside=True)
    )
    wait_for(live)
    yield live
    live.close()


@pytest.fixture
def alone(folder):
    live = LiveBundles.open(folder, MemoryStore(), clock=lambda: NOW)
    yield live
    live.close()


def model_of(live) -> ModelBeside:
    return live._current.beside


def wait_for(live, not_this=None):
    """Until there is a process that can be asked; gives its number."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = model_of(live).process_id
        if found not in {None, not_this}:
            return found
        time.sleep(0.02)
    raise AssertionError("the model's process did not start")


def ask(live, *questions):
    return asyncio.run(live.predict(questions))


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def spied(live):
    """The model's process, watched: which of its questions were answered."""
    model, heard = model_of(live), []

    def answered(name):
        real = getattr(model, name)

        def call(*args):
            found = real(*args)
            heard.append((name, found is not None))
            return found

        return patch.object(model, name, call)

    return answered("offers"), answered("search"), heard


def test_answers_are_those_of_the_service_alone(beside, alone):
    offers, search, heard = spied(beside)
    with offers, search:
        together = ask(beside, *QUESTIONS)
        one_by_one = [ask(beside, question)[0] for question in QUESTIONS]
    assert heard
    assert all(is_answered for _, is_answered in heard)
    assert together == ask(alone, *QUESTIONS)
    assert one_by_one == [ask(alone, question)[0] for question in QUESTIONS]


def test_what_a_network_searches_for_users_is_searched_by_the_process(network):
    options = LiveOptions(beside=True)
    live = LiveBundles.open(network, MemoryStore(), clock=lambda: NOW, options=options)
    alone = LiveBundles.open(network, MemoryStore(), clock=lambda: NOW)
    wait_for(live)
    with patch.object(answers, "_LARGE", 0):
        offers, search, heard = spied(live)
        with offers, search:
            found = ask(live, *QUESTIONS[:2])
        assert heard == [("search", True)]
        assert found == ask(alone, *QUESTIONS[:2])
    live.close()
    alone.close()


def test_whoever_asks_works_alone_while_the_process_is_away_and_it_comes_back(beside, alone):
    first = wait_for(beside)
    os.kill(first, signal.SIGKILL)
    expected = ask(alone, *QUESTIONS)
    assert ask(beside, *QUESTIONS) == expected
    assert wait_for(beside, first) != first
    assert ask(beside, *QUESTIONS) == expected


def test_a_process_that_hangs_is_given_up_and_replaced(folder, alone):
    live = LiveBundles.open(folder, MemoryStore(), clock=lambda: NOW)
    model = ModelBeside(folder / "versions" / live.version, answer_seconds=0.5)
    live._current = type(live._current)(
        loaded=live._current.loaded, users=live._current.users, beside=model
    )
    try:
        first = wait_for(live)
        os.kill(first, signal.SIGSTOP)
        start = time.monotonic()
        assert ask(live, *QUESTIONS) == ask(alone, *QUESTIONS)
        assert time.monotonic() - start < 10
        assert model.process_id != first
    finally:
        live.close()
    assert not is_running(first)


def test_a_swap_and_the_end_leave_no_process_behind(folder):
    live = LiveBundles.open(
        folder, MemoryStore(), clock=lambda: NOW, options=LiveOptions(beside=True)
    )
    first = wait_for(live)
    live.swap("latest")
    assert not is_running(first)
    second = wait_for(live)
    live.close()
    assert not is_running(second)
    assert model_of(live).offers(live.loaded.predictor.histories, None, 3, None) is None


def test_a_folder_that_cannot_be_loaded_leaves_the_service_alone(tmp_path, caplog):
    model = ModelBeside(tmp_path)
    end = time.monotonic() + 60
    while "ended with" not in caplog.text and time.monotonic() < end:
        time.sleep(0.05)
    assert "the model's process ended with 1; the next one starts in 1 s" in caplog.text
    assert not model.is_ready
    model.close()


def test_a_machine_that_starts_no_process_leaves_the_service_alone(folder, caplog):
    with patch("nextbuy.service.live.beside.subprocess.Popen", side_effect=OSError("no memory")):
        model = ModelBeside(folder)
        end = time.monotonic() + 10
        while "could not be started: no memory" not in caplog.text and time.monotonic() < end:
            time.sleep(0.01)
        model.close()
    assert "could not be started: no memory" in caplog.text
    assert not model.is_ready


def test_the_process_ends_with_the_one_that_started_it(folder):
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from nextbuy.service.live.beside import ModelBeside\n"
        "model = ModelBeside(Path(sys.argv[1]))\n"
        "while not model.is_ready: time.sleep(0.02)\n"
        "print(model.process_id, flush=True)\n"
        "time.sleep(600)\n"
    )
    version = next((folder / "versions").glob("0*"))
    with subprocess.Popen(
        [sys.executable, "-c", program, str(version)], stdout=subprocess.PIPE
    ) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
    end = time.monotonic() + 20
    while is_running(child) and time.monotonic() < end:
        time.sleep(0.02)
    assert not is_running(child)


def test_frames_arrive_as_they_were_sent_and_an_end_is_told():
    here, there = socket.socketpair()
    arrays = {
        "a": np.arange(6, dtype=np.int32).reshape(2, 3), "none": np.zeros(0, np.float32),
        "long": np.arange(50_000, dtype=np.int64)[::2],
    }  # fmt: skip
    with there:
        with here:
            there.settimeout(5)
            here.settimeout(5)
            send(here, {"k": 3, "rules": None}, arrays)
            words, found = receive(there)
        assert words == {"k": 3, "rules": None}
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            assert np.array_equal(found[name], array)
        with pytest.raises(EOFError):
            receive(there)
