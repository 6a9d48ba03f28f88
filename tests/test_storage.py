"""Files that survive a crash: what is published is whole, what is damaged is refused by name."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nextbuy import storage
from nextbuy.errors import DamagedError

# JSON


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@given(value=json_values)
def test_json_comes_back_as_it_was(value, tmp_path_factory):
    path = tmp_path_factory.mktemp("json") / "value.json"
    if "\\ud" in json.dumps(value):
        return  # a lone surrogate is no text
    storage.write_json(path, value)
    assert storage.read_json(path) == value


def test_equal_values_give_equal_bytes(tmp_path):
    storage.write_json(tmp_path / "one.json", {"b": 1, "a": [1.5]})
    storage.write_json(tmp_path / "two.json", {"a": [1.5], "b": 1})
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_not_written(number, tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json(tmp_path / "value.json", {"x": number})


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": NaN}', b'{"a": Infinity}', b'{"a": 1e999}', b'{"a": 1, "a": 2}', b"{", b"",
        b'\xef\xbb\xbf{"a": 1}', b'{"a": "\xff"}', b'{"a": 1} trailing', b"[" * 40 + b"]" * 40,
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_M06_json_that_is_not_strict_is_refused(text, tmp_path):
    path = tmp_path / "value.json"
    path.write_bytes(text)
    with pytest.raises(DamagedError, match=r"value\.json"):
        storage.read_json(path)


def test_brackets_inside_text_are_no_depth(tmp_path):
    storage.write_json(tmp_path / "value.json", {"a": '[{"\\' * 50})
    assert storage.read_json(tmp_path / "value.json") == {"a": '[{"\\' * 50}


def test_json_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(DamagedError, match="at most"):
        storage.read_json(path)


# Arrays


@given(
    array=st.sampled_from(["f4", "f8", "i4", "i8", "u1", "?"]).flatmap(
        lambda kind: arrays(kind, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    )
)
def test_arrays_come_back_as_they_were(array, tmp_path_factory):
    path = tmp_path_factory.mktemp("arrays") / "some.safetensors"
    storage.write_arrays(path, {"a": array, "t": array.T})
    found = storage.read_arrays(path)
    for name, expected in (("a", array), ("t", array.T)):
        assert found[name].dtype == expected.dtype
        assert found[name].shape == expected.shape
        assert found[name].tobytes() == np.ascontiguousarray(expected).tobytes()


def header_and_data(header, data=b"\0" * 8):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0" * 7, (2**63).to_bytes(8, "little") + b"{}",
        (10**8).to_bytes(8, "little") + b"{}",
        header_and_data(b"not json"), header_and_data(b"{}" + b" " * 10)[:12],
        header_and_data({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 8]}}),
        header_and_data({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}),
        header_and_data({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 800]}}),
        header_and_data({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}),
        header_and_data({"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}),
        header_and_data({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                         "b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}),
        b"\x80\x04\x95pickle", b"PK\x03\x04 a zip",
    ],
)  # fmt: skip
def test_M03_M05_files_that_lie_about_their_content_are_refused(content, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"weights\.safetensors"):
        storage.read_arrays(path)


def test_M01_a_file_cut_at_any_byte_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    storage.write_arrays(path, {"w": np.arange(5, dtype="f4")})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedError):
            storage.read_arrays(path)


# Publishing


def write_two(text):
    def write(folder):
        (folder / "sub").mkdir()
        (folder / "a.txt").write_text(text)
        (folder / "sub" / "b.txt").write_text(text)

    return write


def test_what_is_published_verifies_and_keeps_its_facts(tmp_path):
    folder = storage.publish(tmp_path / "v", "one", write_two("1"), facts={"version": "1.2"})
    assert folder == tmp_path / "v" / "one"
    assert storage.verify(folder)["facts"] == {"version": "1.2"}
    assert (folder / "sub" / "b.txt").read_text() == "1"
    assert [path.name for path in (tmp_path / "v").iterdir()] == ["one"]


def test_latest_is_nothing_then_what_it_was_pointed_to(tmp_path):
    assert storage.latest(tmp_path) is None
    for name in ("one", "two"):
        storage.publish(tmp_path, name, write_two(name))
        storage.point_latest(tmp_path, name)
        assert storage.latest(tmp_path) == name
    (tmp_path / storage.LATEST).write_text("../elsewhere\n")
    with pytest.raises(DamagedError, match="not a safe name"):
        storage.latest(tmp_path)


def test_M18_the_second_writer_of_a_name_is_refused_and_changes_nothing(tmp_path):
    storage.publish(tmp_path, "one", write_two("first"))
    with pytest.raises(storage.StorageError, match="another writer was first"):
        storage.publish(tmp_path, "one", write_two("second"))
    assert (tmp_path / "one" / "a.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def flip(path, position, bit):
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (lambda f: (f / "a.txt").unlink(), "a.txt is missing"),
        (lambda f: (f / "sub" / "b.txt").write_bytes(b""), "b.txt has 0 bytes"),
        (lambda f: (f / "extra.txt").write_text("x"), "extra.txt is not in the manifest"),
        (lambda f: flip(f / "a.txt", 3, 5), "a.txt was changed"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json cannot be read"),
        (lambda f: (f / "manifest.json").write_text("[]"), "manifest.json is no manifest"),
        (lambda f: ((f / "a.txt").unlink(), (f / "a.txt").symlink_to("/etc/passwd")), "a.txt"),
        (lambda f: ((f / "a.txt").unlink(), os.mkfifo(f / "a.txt")), "a.txt is neither"),
        (lambda f: ((f / "a.txt").unlink(), (f / "a.txt").mkdir()), "a.txt is missing"),
    ],
)
def test_M11_whatever_is_wrong_with_a_file_is_found_and_the_file_named(tmp_path, damage, names):
    folder = storage.publish(tmp_path, "one", write_two("some text"))
    damage(folder)
    with pytest.raises(DamagedError, match=names):
        storage.verify(folder)


def test_M02_one_flipped_bit_anywhere_is_found(tmp_path):
    folder = storage.publish(tmp_path, "one", write_two("text"))
    for path in (folder / "a.txt", folder / "sub" / "b.txt"):
        for position in range(path.stat().st_size):
            for bit in range(8):
                flip(path, position, bit)
                with pytest.raises(DamagedError, match=path.name):
                    storage.verify(folder)
                flip(path, position, bit)
    storage.verify(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"format": "1"}, {"files": []}, {"files": {"../x": {}}}, {"more": 1},
        {"files": {"a.txt": {"size": "4", "sha256": ""}}}, {"files": {"a.txt": 3}}, {"facts": None},
        {"files": {"a.txt": {"size": 4, "sha256": "", "run": "rm"}}},
    ],
)  # fmt: skip
def test_M06_manifests_of_the_wrong_kind_are_refused(tmp_path, change):
    folder = storage.publish(tmp_path, "one", write_two("text"))
    manifest = json.loads((folder / "manifest.json").read_text()) | change
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedError):
        storage.verify(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../x", "..%252f", "..\\..\\", "/etc", "a\0b", ".", "..", "CON", "con.txt", "nul",
        "x" * 300,
        "\u202eabc", "", "a/b", "ä", ".hidden", "A", "a.", "x" * 65, "lpt1",
    ],
)  # fmt: skip
def test_M12_unsafe_names_are_refused(name, tmp_path):
    with pytest.raises(DamagedError, match="not a safe name"):
        storage.check_name(name)
    with pytest.raises(DamagedError):
        storage.publish(tmp_path / "v", name, write_two("x"))


@pytest.mark.parametrize("name", ["a", "000001", "lstm-rnn", "step-000000001-0000", "x" * 64])
def test_safe_names_are_themselves(name):
    assert storage.check_name(name) == name


# Disks that refuse


def refusing(monkeypatch, what, number):
    """Make a call fail as a full or broken disk does."""

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    if what == "fsync":
        monkeypatch.setattr(os, "fsync", refuse)
    else:
        monkeypatch.setattr(Path, what, refuse)


@pytest.mark.parametrize("what", ["fsync", "rename", "mkdir"])
@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EDQUOT],
    ids=errno.errorcode.__getitem__,
)  # fmt: skip
def test_T04_T06_a_disk_that_refuses_costs_nothing_that_was_there(
    tmp_path, monkeypatch, what, number
):
    storage.publish(tmp_path, "one", write_two("old"))
    storage.point_latest(tmp_path, "one")
    refusing(monkeypatch, what, number)
    with pytest.raises(storage.StorageError) as refused:
        storage.publish(tmp_path, "two", write_two("x" * 1000))
    if what != "mkdir":
        with pytest.raises(storage.StorageError):
            storage.point_latest(tmp_path, "two")
    monkeypatch.undo()
    assert "two could not be written" in str(refused.value)
    assert "What was there before is untouched" in str(refused.value)
    if number in (errno.ENOSPC, errno.EDQUOT):
        assert "bytes were needed" in str(refused.value)
        assert "are free" in str(refused.value)
    assert storage.latest(tmp_path) == "one"
    storage.verify(tmp_path / "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LATEST", "one"]


def test_an_error_of_the_writer_leaves_nothing_behind(tmp_path):
    def fails(folder):
        (folder / "half.txt").write_text("half")
        raise KeyError("bug")

    with pytest.raises(KeyError):
        storage.publish(tmp_path, "one", fails)
    assert list(tmp_path.iterdir()) == []


# Kills


PUBLISH_TWO = """
import sys
from pathlib import Path
from nextbuy import storage

def write(folder):
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text("two " * 1000)

parent = Path(sys.argv[1])
storage.publish(parent, "two", write)
storage.point_latest(parent, "two")
"""


@pytest.mark.parametrize("moment", storage.FAILPOINTS)
def test_T24_killed_at_any_moment_readers_see_the_old_or_the_new(tmp_path, moment):
    def write_one(folder):
        for name in ("a.txt", "b.txt"):
            (folder / name).write_text("one")

    storage.publish(tmp_path, "one", write_one)
    storage.point_latest(tmp_path, "one")
    killed = subprocess.run(
        [sys.executable, "-c", PUBLISH_TWO, str(tmp_path)],
        env=os.environ | {"NEXTBUY_FAILPOINT": moment}, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    name = storage.latest(tmp_path)
    assert name == ("two" if moment == "after_latest" else "one")
    storage.verify(tmp_path / name)
    expected = "one" if name == "one" else "two " * 1000
    assert {(tmp_path / name / f).read_text() for f in ("a.txt", "b.txt")} == {expected}
    storage.remove_leftovers(tmp_path)
    assert not list(tmp_path.glob("tmp-*"))
    if not (tmp_path / "two").exists():
        storage.publish(tmp_path, "two", write_two("again"))
    storage.point_latest(tmp_path, "two")
    assert storage.latest(tmp_path) == "two"
