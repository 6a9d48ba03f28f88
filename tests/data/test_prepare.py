"""A prepared log is the log that fits into memory, to the byte; whatever killed its preparation."""

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextbuy.data.encoding import encode
from nextbuy.data.prepare import gather
from nextbuy.data.prepare.journal import Pieces
from nextbuy.data.prepare.prepared import Prepared
from nextbuy.data.prepare.preparing import forecast, prepare
from nextbuy.data.prepare.survey import PrepareConfig, parse_bytes
from nextbuy.data.reading import read_purchases
from nextbuy.data.sources import load_source
from nextbuy.errors import (
    ColumnError,
    ConfigError,
    DamagedError,
    DataError,
    EmptyDataError,
    MemoryIsShortError,
    ResumeError,
    TimeFormatError,
    UnreadableFileError,
)
from tests.data.logs import NOW, options, written

START = datetime(2024, 1, 1, tzinfo=UTC)
ARRAYS = ("items", "times", "baskets", "offsets", "prices", "quantities")


def assert_same(prepared, purchases, encoded):
    """The prepared log is the one that was read and encoded in memory."""
    assert prepared.purchases.counts == purchases.counts
    assert sorted(prepared.purchases.guesses) == sorted(purchases.guesses)
    assert prepared.purchases.time_kind == purchases.time_kind
    assert prepared.purchases.basket_kind == purchases.basket_kind
    found, wanted = prepared.encoded, encoded
    assert found.catalog.level == wanted.catalog.level
    assert found.catalog.table.equals(wanted.catalog.table)
    assert found.histories.user_ids.equals(wanted.histories.user_ids)
    for name in ARRAYS:
        one, other = getattr(found.histories, name), getattr(wanted.histories, name)
        assert (one is None) == (other is None), name
        assert one is None or (one.dtype == other.dtype and one.tobytes() == other.tobytes()), name
    for name in ("num_merged", "num_capped", "num_capped_users", "num_left_out"):
        assert getattr(found, name) == getattr(wanted, name), name
    path = prepared.folder / "rejects.csv"
    assert pl.read_csv(path, schema=purchases.rejects.schema).equals(purchases.rejects)


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


texts = st.sampled_from(["a", "b", "007", "7", "10", "9", "ä", " x ", "", "é" * 200])
rows = st.fixed_dictionaries(
    {
        "user_id": texts | st.none(),
        "item_id": texts,
        "timestamp": st.integers(0, 4).map(lambda day: START + timedelta(days=day)),
        "platform": st.sampled_from(["web", "app", None]),
        "category": st.sampled_from(["c1", "c2", None]),
        "price": st.sampled_from([1.0, 1.1, 2.5, -1.0, None]),
        "quantity": st.sampled_from([1.0, 3.0, None]),
        "basket_id": st.sampled_from(["b1", "b2", None]),
    }
)
SCHEMA = {
    **dict.fromkeys(["user_id", "item_id", "platform", "category", "basket_id"], pl.String),
    **dict.fromkeys(["price", "quantity"], pl.Float64),
    "timestamp": pl.Datetime("us", "UTC"),
}


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.data(), log=st.lists(rows, min_size=1, max_size=40))
def test_a_prepared_log_is_the_log_in_memory(data, log, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    frame = pl.DataFrame(log, schema=SCHEMA)
    dropped = data.draw(
        st.sets(st.sampled_from(["platform", "category", "price", "quantity", "basket_id"]))
    )
    level = data.draw(st.sampled_from(["item", "category", "platform"]))
    frame = frame.drop(dropped - {level})
    cut = data.draw(st.integers(0, len(log)))
    for number, part in enumerate((frame[:cut], frame[cut:])):
        (folder / "log").mkdir(exist_ok=True)
        part.write_parquet(
            folder / "log" / f"{number}.parquet",
            row_group_size=data.draw(st.integers(1, 20)),
        )
    told = options(
        baskets=data.draw(st.sampled_from(["auto", "timestamp", "none"])),
        duplicates=data.draw(st.sampled_from(["keep", "drop"])),
        returns=data.draw(st.sampled_from(["keep", "drop"])),
        time=data.draw(st.sampled_from(["auto", "dates"])),
    )
    config = PrepareConfig(
        level=level, max_history=data.draw(st.sampled_from([1, 3, 10_000])),
        buckets=data.draw(st.integers(1, 5)), batch_rows=data.draw(st.integers(1, 15)),
    )  # fmt: skip
    try:
        purchases = read_purchases(folder / "log", told)
        encoded = encode(purchases, level, max_history=config.max_history)
    except EmptyDataError:
        with pytest.raises(EmptyDataError):
            prepare(folder / "log", folder / "out", config, told)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather, "_STRETCH", data.draw(st.integers(1, 12)))
        prepared = prepare(folder / "log", folder / "out", config, told)
    assert_same(prepared, purchases, encoded)
    prepared.verify()


@pytest.mark.parametrize(
    "rows_of_time",
    [
        {"time": [1, 5, 3, 3, 2, 9, 4, 4]},  # positions
        {"time": [1_700_000_000 + 86_400 * day for day in (1, 5, 3, 3, 2, 9, 4, 4)]},
        {},  # nothing but the order of the rows
    ],
)
def test_positions_epochs_and_the_order_of_rows_are_times(tmp_path, rows_of_time):
    frame = pl.DataFrame({"user": [3, 1, 3, 1, 2, 3, 1, 2], "item": [*"abcabcab"], **rows_of_time})
    frame.write_parquet(tmp_path / "log.parquet", row_group_size=3)
    told = options(time="auto" if rows_of_time else "order")
    purchases = read_purchases(tmp_path / "log.parquet", told)
    prepared = prepare(
        tmp_path / "log.parquet", tmp_path / "out", PrepareConfig(buckets=3, batch_rows=3), told
    )
    assert_same(prepared, purchases, encode(purchases))


def test_quotes_breaks_and_broken_rows_of_text_are_as_in_memory(tmp_path):
    lines = ["\ufeffuser;item;date;price"]
    for day in range(1, 29):
        lines += [
            f'{user};i{day % 5};2024-02-{day:02};"{day},50"' for user in ("u1", '"u;2"', '"u\n3"')
        ]
        lines.append(f"u1;i1;2024-02-{day:02}")  # a field is missing
        lines.append(f"u4;i1;not a day;{day},50")
    source = written(tmp_path, "\r\n".join(lines) + "\r\n")
    purchases = read_purchases(source, options())
    prepared = prepare(source, tmp_path / "out", PrepareConfig(batch_rows=13), options())
    assert len(list((tmp_path / "out").glob("work"))) == 0
    assert purchases.counts.rejected == 56
    assert_same(prepared, purchases, encode(purchases))


def a_log(folder, num_rows=3000):
    rng = np.random.default_rng(5)
    path = folder / "log.parquet"
    pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in rng.integers(0, 90, num_rows)],
            "item_id": [f"i{n}" for n in rng.integers(0, 40, num_rows)],
            "timestamp": [START + timedelta(days=int(n)) for n in rng.integers(0, 300, num_rows)],
            "platform": [["web", "app"][n] for n in rng.integers(0, 2, num_rows)],
            "price": rng.integers(-1, 9, num_rows) / 2,
        }
    ).write_parquet(path, row_group_size=500)
    return path


@pytest.mark.parametrize(
    ("moment", "left"),
    [
        ("before_batches:4", {"batches": 2}),
        ("after_batches:2", {"batches": 1}),
        ("before_buckets:3", {"batches": 6}),
        ("after_stretch:1", {"batches": 6, "buckets": 5}),
    ],
)
def test_a_killed_preparation_goes_on_and_ends_with_the_same_bytes(tmp_path, moment, left):
    source = a_log(tmp_path)
    config = PrepareConfig(buckets=5, batch_rows=500)
    script = (
        "import sys; from pathlib import Path\n"
        "from nextbuy.data.prepare.preparing import prepare\n"
        "from nextbuy.data.prepare.survey import PrepareConfig\n"
        "prepare(sys.argv[1], Path(sys.argv[2]), PrepareConfig(buckets=5, batch_rows=500))"
    )
    killed = tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, "-c", script, str(source), str(killed)],
        env={**os.environ, "NEXTBUY_FAILPOINT": moment}, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    for kind, least in left.items():
        pieces = Pieces(killed / "work" / kind)
        assert pieces.count() >= least
        (pieces.path(0) / "mark").touch()  # would not be there if the piece were done again
    marks = list((killed / "work").rglob("mark"))
    seen = []

    class Watching:
        def about(self, subject):
            pass

        def start(self, name, total, done=0):
            seen.append((name, done, [mark.exists() for mark in marks]))

        def advance(self, units, facts):
            pass

        def finish(self):
            pass

    prepare(source, killed, config, progress=Watching())
    assert all(all(there) for _, _, there in seen)
    assert seen[0][0] == "reading"
    assert seen[0][1] >= 500 * left["batches"]
    prepare(source, tmp_path / "whole", config)
    assert files_of(killed) == files_of(tmp_path / "whole")


def test_a_batch_that_was_finished_after_one_that_was_not_is_read_again(tmp_path):
    source, config = a_log(tmp_path), PrepareConfig(buckets=5, batch_rows=500)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nextbuy.data.prepare.preparing.encode_buckets", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(source, tmp_path / "out", config)
    shutil.rmtree(tmp_path / "out" / "work" / "batches" / "000002")
    prepare(source, tmp_path / "out", config)
    prepare(source, tmp_path / "whole", config)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_another_command_does_not_go_on_in_the_same_folder(tmp_path):
    source = a_log(tmp_path)
    out = tmp_path / "out"
    (out / "work").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nextbuy.data.prepare.preparing._Run.all", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(source, out, PrepareConfig())
    with pytest.raises(ResumeError, match="level = 'item'; now it is 'platform'"):
        prepare(source, out, PrepareConfig(level="platform"))
    finished = prepare(source, out, PrepareConfig())
    assert prepare(source, out).fingerprint == finished.fingerprint
    with pytest.raises(ConfigError, match="max_history = 10000; now it is 3"):
        prepare(source, out, PrepareConfig(max_history=3))


def test_what_cannot_fit_is_refused_before_anything_is_written(tmp_path):
    source = a_log(tmp_path)
    with pytest.raises(MemoryIsShortError, match=r"3,000 rows need about .* MiB of memory"):
        prepare(source, tmp_path / "out", PrepareConfig(memory_limit=parse_bytes("100MiB")))
    assert not (tmp_path / "out" / "work").exists()
    told = forecast(source, tmp_path / "out", PrepareConfig(memory_limit=parse_bytes("1GiB")))
    assert told.rows == 3000
    assert told.memory_limit == 2**30
    assert told.memory_bytes <= told.memory_limit
    few = forecast(source, tmp_path / "out", PrepareConfig(buckets=1))
    assert few.buckets == 1


@pytest.mark.parametrize(
    ("size", "wanted"), [("8GiB", 8 * 2**30), ("500m", 500 * 2**20), ("1.5 g", 3 * 2**29),
                         ("2048", 2048 * 2**20), ("64kB", 64 * 1024)]
)  # fmt: skip
def test_sizes_are_read_in_powers_of_two(size, wanted):
    assert parse_bytes(size) == wanted


@pytest.mark.parametrize("size", ["", "8 apples", "-1g", "0"])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ConfigError, match="8GiB"):
        parse_bytes(size)


def test_batches_that_are_understood_in_two_ways_are_refused(tmp_path):
    seconds = [1_700_000_000] * 4 + [1_700_000_000_000] * 4
    frame = pl.DataFrame({"user": ["u"] * 8, "item": ["i"] * 8, "time": seconds})
    frame.write_parquet(tmp_path / "log.parquet", row_group_size=4)
    with pytest.raises(DataError):
        read_purchases(tmp_path / "log.parquet", options())
    with pytest.raises(TimeFormatError, match=r"milliseconds.*instead of.*seconds"):
        prepare(tmp_path / "log.parquet", tmp_path / "out", PrepareConfig(batch_rows=4), options())


def test_what_cannot_be_read_in_pieces_is_named(tmp_path):
    listed = pl.DataFrame({"user": ["u", "v"], "items": [["a", "b"], ["c"]]})
    listed.write_parquet(tmp_path / "lists.parquet")
    with pytest.raises(ColumnError, match="'items' holds lists"):
        prepare(tmp_path / "lists.parquet", tmp_path / "1")
    written(tmp_path, '{"user": "u", "item": "i"}\n', "log.jsonl")
    with pytest.raises(UnreadableFileError, match=r"log\.jsonl is not Parquet, CSV or TSV"):
        prepare(tmp_path / "log.jsonl", tmp_path / "2")
    written(tmp_path, "user,item,date\nü,i,2024-01-01\n".encode("cp1252"), "log.csv")
    with pytest.raises(UnreadableFileError, match="not UTF-8"):
        prepare(tmp_path / "log.csv", tmp_path / "3", options=options(encoding="cp1252"))
    written(tmp_path, "user,item,date\nu,i,2024-01-01\n", "mixed/log.csv")
    listed.write_parquet(tmp_path / "mixed" / "log.parquet")
    with pytest.raises(ConfigError, match=r"Parquet \(.*log.parquet\) and text"):
        prepare(tmp_path / "mixed", tmp_path / "4")


def test_a_damaged_folder_is_noticed_when_it_is_mapped_or_verified(tmp_path):
    prepared = prepare(a_log(tmp_path), tmp_path / "out", options=options())
    array = tmp_path / "out" / "histories" / "items.npy"
    whole = array.read_bytes()
    array.write_bytes(whole[:-4] + b"\1\0\0\0")
    with pytest.raises(DamagedError, match=r"items\.npy was changed"):
        prepared.verify()
    array.write_bytes(whole[:-4])
    with pytest.raises(DamagedError, match=rf"items\.npy has {len(whole) - 4} bytes"):
        Prepared.load(tmp_path / "out")


def test_a_prepared_folder_is_a_source_that_knows_its_level_and_how_it_was_read(tmp_path):
    frame = pl.DataFrame({"who": ["u", "v"], "item": ["i", "j"], "date": ["2024-01-01"] * 2})
    frame.write_parquet(tmp_path / "log.parquet")
    prepare(tmp_path / "log.parquet", tmp_path / "out", options=options(user_column="who"))
    source = load_source(tmp_path / "out", options=options(user_column="who", now=None))
    assert isinstance(source.encoded("item").histories.items, np.memmap)
    assert source.purchases.counts.kept == 2
    with pytest.raises(ConfigError, match="prepared with --level item, asked is --level platform"):
        source.encoded("platform")
    with pytest.raises(ConfigError, match="user_column = 'who'; now it is said to be 'item'"):
        load_source(tmp_path / "out", options=options(user_column="item"))
    account = json.loads((tmp_path / "out" / "prepared.json").read_text(encoding="utf-8"))
    assert account["rows"] == {"in": 2, "kept": 2, "rejected": 0, "duplicates": 0}
    assert NOW.year == 2025


def test_a_piece_that_another_has_finished_meanwhile_stays_as_it_is(tmp_path):
    pieces = Pieces(tmp_path / "pieces")

    def write(folder):
        (folder / "mine").write_text("mine")
        pieces.path(0).mkdir()
        (pieces.path(0) / "theirs").write_text("theirs")

    pieces.put(0, write)
    assert [path.name for path in pieces.folder.iterdir()] == [pieces.path(0).name]
    assert [path.name for path in pieces.path(0).iterdir()] == ["theirs"]
