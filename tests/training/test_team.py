"""Several processes train one network, and lose each other (C01 to C07)."""

import json
import multiprocessing
import os
import signal
import socket
import time
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch

from nextbuy import storage
from nextbuy.errors import JoinError
from nextbuy.nn.dropout import RowsGenerator, drop
from nextbuy.nn.own_items import purchase_facts
from nextbuy.training.batches import cut_into_windows, epoch_batches
from nextbuy.training.distributed import listen
from nextbuy.training.parts import part_of, rows_of
from tests.training.small_run import small_histories
from tests.training.small_team import forked

HOST = "127.0.0.1"


def free_port():
    with socket.socket() as one:
        one.bind((HOST, 0))
        return one.getsockname()[1]


@dataclass
class Rank:
    """A process, and where its output goes."""

    process: BaseProcess
    output: Path

    def send_signal(self, number):
        os.kill(self.process.pid, number)

    def ended(self):
        """Exit code, standard output and standard error."""
        self.process.join(timeout=120)
        texts = [Path(f"{self.output}.{name}").read_text() for name in ("out", "err")]
        return self.process.exitcode, *texts


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Start a rank; at the end none is left."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.small_team"])
    outputs, started = tmp_path_factory.mktemp("outputs"), []

    def start_rank(rank, size, port, folder, *flags, failpoint=""):
        words = [str(word) for word in (rank, size, HOST, port, folder, *flags)]
        output = outputs / str(len(started))
        process = context.Process(target=forked, args=(words, failpoint, output))
        process.start()
        started.append(process)
        return Rank(process, output)

    yield start_rank
    for process in started:
        process.kill()
        process.join()
        process.close()


@pytest.fixture(scope="module")
def team(start):
    """Start all ranks; the failpoint is of rank 0."""

    def start_team(folder, size=2, *flags, failpoint=""):
        port = free_port()
        return [
            start(rank, size, port, folder, *flags, failpoint="" if rank else failpoint)
            for rank in range(size)
        ]

    return start_team


def hashes(ranks):
    """Of the files that rank 0 ends with, without the state's own best loss in words."""
    done = [rank.ended() for rank in ranks]
    assert [code for code, _, _ in done] == [0] * len(ranks), done
    return json.loads(done[0][1])["hashes"]


def wait_for_checkpoint(folder, ranks):
    while not list(Path(folder).glob("checkpoints/step-*")):
        assert all(rank.process.exitcode is None for rank in ranks)
        time.sleep(0.01)


def weights_in(folder):
    last = sorted((folder / "checkpoints").iterdir())[-1]
    return storage.read_arrays(last / "weights.safetensors")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, team):
    """Folder and final hashes of two ranks that nobody disturbed."""
    folder = tmp_path_factory.mktemp("team") / "run"
    return folder, hashes(team(folder))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("has_own", [False, True])
def test_parts_of_a_batch_are_together_the_batch(size, has_own):
    histories = small_histories(60)
    windows = cut_into_windows(histories, 10)
    facts = purchase_facts(histories) if has_own else None
    for batch in epoch_batches(histories, windows, tokens=64, seed=1, epoch=0, facts=facts):
        num_rows, length = batch.targets.shape
        rows = [rows_of(num_rows, rank, size) for rank in range(size)]
        parts = [part_of(batch, one) for one in rows]
        assert np.array_equal(np.concatenate([p.inputs for p in parts]), batch.inputs)
        asked = [p.questions() for p in parts]
        # Each target is asked of the same place of the whole grid, by exactly one part.
        places = [a.states[a.owners] + r.start * length for a, r in zip(asked, rows, strict=True)]
        whole = batch.questions()
        assert np.array_equal(np.concatenate(places), whole.states[whole.owners])
        assert np.array_equal(np.concatenate([a.targets for a in asked]), whole.targets)
        for part, one in zip(parts, asked, strict=True):
            again = replace(part, asked=None).questions()  # counted anew, from the rows alone
            assert np.array_equal(one.states, again.states)
            assert np.array_equal(one.owners, again.owners)
            if part.own is not None:
                assert len(part.own.summaries) == len(one.states)
        if batch.own is not None:
            assert np.array_equal(np.concatenate([p.own.items for p in parts]), batch.own.items)


def test_some_rows_drop_out_as_they_do_in_the_whole_batch():
    whole, part = torch.Generator().manual_seed(3), RowsGenerator().manual_seed(3)
    x = torch.ones(7, 3, 5)
    part.first, part.whole = 2, 7
    assert torch.equal(drop(x, 0.5, whole)[2:5], drop(x[2:5], 0.5, part))


def test_two_ranks_train_as_one_does_but_for_rounding(tmp_path, team, undisturbed):
    hashes(team(tmp_path / "alone", 1))
    one, two = weights_in(tmp_path / "alone"), weights_in(undisturbed[0])
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=2e-5)


def test_C01_a_killed_rank_ends_the_other_and_the_next_start_ends_with_equal_bytes(
    tmp_path, team, undisturbed
):
    ranks = team(tmp_path / "run", 2, "--pause", 0.05)
    wait_for_checkpoint(tmp_path / "run", ranks)
    ranks[1].process.kill()
    code, _, err = ranks[0].ended()
    assert code == 1
    assert "PeerLostError: Rank 0 waited" in err
    assert hashes(team(tmp_path / "run")) == undisturbed[1]


def test_C02_a_rank_that_hangs_is_given_up_and_the_stack_of_the_other_is_told(tmp_path, team):
    ranks = team(tmp_path / "run", 2, "--pause", 0.05, "--timeout", 2)
    wait_for_checkpoint(tmp_path / "run", ranks)
    ranks[1].send_signal(signal.SIGSTOP)
    code, _, err = ranks[0].ended()
    ranks[1].process.kill()
    assert code == 1
    assert "lost another rank: Timed out waiting 2000ms" in err
    assert "Rank 0 waited for gradients here:" in err
    assert "add_up" in err


def test_C03_a_straggler_is_waited_for_and_its_time_is_known(tmp_path, start, undisturbed):
    port, folder = free_port(), tmp_path / "run"
    ranks = [start(0, 2, port, folder), start(1, 2, port, folder, "--pause", 0.2)]
    for _ in range(3):
        time.sleep(0.3)
        ranks[1].send_signal(signal.SIGSTOP)
        time.sleep(0.2)
        ranks[1].send_signal(signal.SIGCONT)
    assert hashes(ranks) == undisturbed[1]


def test_G5_what_two_began_one_ends_and_the_other_way_round(tmp_path, team):
    hashes(team(tmp_path / "alone", 1))
    for folder, first in ((tmp_path / "a", 2), (tmp_path / "b", 1)):
        begun = team(folder, first, failpoint="after_step:6")
        assert begun[0].ended()[0] == -signal.SIGKILL
        begun[-1].ended()
        hashes(team(folder, 3 - first))
        one, other = weights_in(tmp_path / "alone"), weights_in(folder)
        for name in one:
            np.testing.assert_allclose(other[name], one[name], rtol=0, atol=2e-5)


@pytest.mark.parametrize("moment", ["mid_manifest:2", "after_rename:3"])
def test_C05_rank_0_dies_during_a_save_and_the_checkpoint_before_it_counts(
    moment, tmp_path, team, undisturbed
):
    ranks = team(tmp_path / "run", failpoint=moment)
    assert ranks[0].ended()[0] == -signal.SIGKILL
    code, _, err = ranks[1].ended()
    assert code == 1
    assert "PeerLostError: Rank 1 waited" in err
    assert hashes(team(tmp_path / "run")) == undisturbed[1]


def test_C06_other_code_is_refused_and_so_is_another_run(tmp_path, start):
    port = free_port()
    ranks = [start(0, 2, port, tmp_path / "a", "--join", 6),
             start(1, 2, port, tmp_path / "a", "--code", "older")]  # fmt: skip
    assert (
        "JoinError: Rank 1 does not belong to this team: it has code 'older', rank 0 has"
        in (ranks[1].ended()[2])
    )
    assert "JoinError: Of 2 ranks 1 did not come within 6 s." in ranks[0].ended()[2]
    assert not (tmp_path / "a" / "checkpoints").exists()
    port = free_port()
    ranks = [start(0, 2, port, tmp_path / "b"),
             start(1, 2, port, tmp_path / "b", "--seed", 1)]  # fmt: skip
    said = "ResumeError: Rank 1 was started differently from rank 0: seed: 1, rank 0 has 0."
    assert said in ranks[1].ended()[2]
    assert ranks[0].ended()[0] == 1


def test_C07_wrong_ranks_are_refused_at_once(tmp_path, start):
    port = free_port()
    start(0, 3, port, tmp_path / "a", "--join", 15)
    twins = [start(1, 3, port, tmp_path / "a", "--join", 6) for _ in range(2)]
    other_size = start(1, 2, port, tmp_path / "a")
    assert (
        "JoinError: Rank 1 does not belong to this team: it has size 2, rank 0 has 3."
        in (other_size.ended()[2])
    )
    beyond = start(3, 3, port, tmp_path / "a")
    assert "There are ranks 0 to 2 in this team, and no 3." in beyond.ended()[2]
    errors = [twin.ended()[2] for twin in twins]
    assert any("Rank 1 is there already" in one for one in errors), errors


def test_C07_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(JoinError, match=rf"port {port}: Address already in use"):
            listen(HOST, port)


def test_C07_a_rank_without_rank_0_gives_up_and_says_where_it_looked(tmp_path, start):
    port = free_port()
    code, _, err = start(1, 2, port, tmp_path / "a", "--join", 1).ended()
    assert code == 1
    assert f"JoinError: Rank 1 does not reach rank 0 at {HOST} port {port} within 1 s" in err


def test_C08_the_store_listens_on_the_given_address_alone():
    with listen(HOST) as listening:
        assert listening.getsockname()[0] == HOST
