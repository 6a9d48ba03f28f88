"""kill -9 at any moment: what was acknowledged is there, once, and the file is whole."""

import random
import subprocess
import sys

import pytest

from nextbuy.service.store.sqlite import SqliteStore
from tests.service.store.sending import bought, sent

WRITER = """
import itertools, os, sys, threading
from pathlib import Path
from nextbuy.service.store.group_commit import Committer
from nextbuy.service.store.sqlite import SqliteStore
from tests.service.store.sending import bought, sent
committer = Committer(SqliteStore(Path(sys.argv[1])))
def work(name):
    for n in itertools.count():
        key = f"{name}-{n}"
        committer.submit(sent(key, bought(name, key))).result()
        os.write(1, f"{key}\\n".encode())
for thread in range(4):
    threading.Thread(target=work, args=[f"{sys.argv[2]}.{thread}"]).start()
"""


@pytest.mark.parametrize("seed", range(2))
def test_S24_S25_what_was_acknowledged_before_a_kill_is_stored_once(tmp_path, seed):
    path, chance, acknowledged = tmp_path / "live.db", random.Random(seed), set()
    for turn in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, path, f"w{turn}"], stdout=subprocess.PIPE
        ) as writer:
            for _ in range(chance.randrange(1, 500)):
                acknowledged.add(writer.stdout.readline().decode().strip())
            writer.kill()
            rest = writer.stdout.read().decode()
        acknowledged |= set(rest[: rest.rfind("\n") + 1].split())
        store = SqliteStore(path)
        store.check_whole()
        stored = store.after(0, 100_000)
        keys = [one.purchase.item_id for one in stored]
        assert acknowledged <= set(keys)
        assert len(set(keys)) == len(keys)
        assert len(keys) - len(acknowledged) <= 4 * (turn + 1)  # at most one a thread in flight
        for one in stored[-10:]:  # the client did not hear of it and sends it again
            receipt = store.write(
                [sent(one.purchase.item_id, bought(one.purchase.user_id, one.purchase.item_id))]
            )[0]
            assert (receipt.first_sequence, receipt.is_repeat) == (one.sequence, True)
        store.close()
