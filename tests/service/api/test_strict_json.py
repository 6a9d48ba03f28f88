"""The strict parser: the same value as Python's on good documents, a reason on bad ones."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextbuy.service.api import strict_json
from nextbuy.service.api.strict_json import depth_of, keys_of, parse
from nextbuy.service.problems import ProblemError

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30
)


def read(raw, *, most_depth=32, most_keys=1_000):
    return parse(raw, most_depth=most_depth, most_keys=most_keys)


def depth_by_recursion(value):
    if isinstance(value, list | dict):
        parts = value.values() if isinstance(value, dict) else value
        return 1 + max((depth_by_recursion(part) for part in parts), default=0)
    return 0


def keys_by_recursion(value):
    parts = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(parts, list):
        return 0
    own = len(value) if isinstance(value, dict) else 0
    return max([own, *map(keys_by_recursion, parts)])


def refusal(raw, **options):
    with pytest.raises(ProblemError) as caught:
        read(raw, **options)
    return caught.value.status, str(caught.value)


@given(documents, st.booleans())
def test_a_good_document_is_read_as_python_reads_it(value, ascii_only):
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert read(raw, most_depth=100) == value
    assert depth_of(raw) == depth_by_recursion(value)
    assert keys_of(raw) == keys_by_recursion(value)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_that_python_agrees_with_or_a_refusal(raw):
    try:
        value = read(raw, most_depth=8)
    except ProblemError as error:
        assert error.status in (400, 422)
    else:
        assert value == json.loads(raw.decode("utf-8"))


def test_S04_depth_is_refused_before_parsing():
    assert read(b"[" * 32 + b"]" * 32, most_depth=32) is not None
    assert refusal(b"[" * 33 + b"]" * 33)[0] == 400
    assert refusal(b'{"a":' * 250_000)[0] == 400
    assert read(b'["[[[[[[\\"[[[[", "]]"]', most_depth=1) == ['[[[[[["[[[[', "]]"]


def test_S04_an_object_has_at_most_so_many_keys():
    def wide(num):
        return "{" + ",".join(f'"{number}:\\"{{": ":"' for number in range(num)) + "}"

    def nested(num):
        return f'{{"a": [{{}}, {wide(num)}, {wide(1)}], "b": [":", {wide(num)}]}}'.encode()

    assert len(read(wide(1_000).encode())) == 1_000
    assert len(read(nested(1_000))["b"][1]) == 1_000
    reason = "The body has an object of more than 1000 keys."
    for raw in (wide(1_001).encode(), nested(1_001), b'{"a":1,' * 1_001, b'{"a":1' + b":1" * 2_000):
        assert refusal(raw, most_depth=2_000)[0] == 400
    assert refusal(wide(1_001).encode()) == (400, reason)
    many = b'{"a": [' + b'{"x": 1, "y": 2}, ' * 5_000 + b"{}]}"
    assert len(read(many, most_keys=2)["a"]) == 5_001


def test_S04_what_is_too_wide_is_not_parsed(monkeypatch):
    """Nothing is made of its hundred thousand keys: the decoder is not even asked."""

    class Decoder:
        def decode(self, text):
            raise AssertionError("it was parsed")

    monkeypatch.setattr(strict_json, "_DECODER", Decoder())
    keys = ",".join(f'"{number}":1' for number in range(100_000))
    assert refusal(f"{{{keys}}}".encode())[0] == 400
    assert refusal(f'{{"purchases": [{{{keys}}}, 1]}}'.encode())[0] == 400


def test_S04_S45_strings_that_do_not_end_are_read_once():
    """Where the scan began anew at each quote, this would take hours; so would the test."""
    for piece in (b'"\\', b'\\"', b'"', b"\\", b'"a\\\\', b'":{'):
        raw = b"[" * 33 + b'{"a":' + piece * 300_000
        assert refusal(raw)[0] == 400
        assert refusal(raw, most_depth=1_000_000)[0] == 400


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": [1, NaN]}', "body.a.1: NaN is no JSON number"),
        ('{"a": {"b": Infinity}}', "body.a.b: Infinity is no JSON number"),
        ('{"a": -Infinity}', "body.a: -Infinity is no JSON number"),
        ('{"a": 1e400}', "body.a: the number is beyond the range of a float"),
    ],
)
def test_S05_numbers_that_are_none_are_refused_with_the_field(text, reason):
    assert refusal(text.encode()) == (422, f"{reason}.")


@pytest.mark.parametrize("number", [str(2**63), str(-(2**63) - 1), "1" + "0" * 30, "9" * 5000])
def test_S06_whole_numbers_beyond_64_bits_are_refused_with_the_field(number):
    told = refusal(f'{{"a": [0, {number}]}}'.encode())
    assert told == (422, "body.a.1: whole numbers have at most 64 bits.")


def test_S06_the_largest_and_the_lowest_are_read():
    assert read(f"[{2**63 - 1}, {-(2**63)}]".encode(), most_depth=1) == [2**63 - 1, -(2**63)]


def test_S07_half_a_surrogate_pair_is_refused_with_the_field():
    assert refusal(b'{"a": ["x", "\\ud800"]}')[1].startswith("body.a.1: half of a surrogate")
    assert refusal(b'{"\\udc00": 1}')[0] == 422
    assert refusal(b'["\\ude00\\ud83d"]')[0] == 422
    assert read(b'["\\ud83d\\ude00", "\\\\ud800"]', most_depth=1) == ["\U0001f600", "\\ud800"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp1252"])
def test_S09_other_encodings_and_byte_order_marks_are_refused(encoding):
    assert refusal('{"a": "é"}'.encode(encoding))[0] == 400


def test_S10_a_key_that_is_there_twice_is_refused_with_the_place():
    assert refusal(b'{"a": {"b": 1, "c": 2, "b": 1}}') == (
        422, "body.a: the key b is there twice.",
    )  # fmt: skip
    assert refusal(b'{"a": 1, "\\u0061": 2}')[0] == 422


def test_S13_an_empty_body_is_refused():
    assert refusal(b"")[0] == refusal(b" \r\n\t")[0] == 422


@pytest.mark.parametrize("raw", [b"{", b"[1,]", b"{'a': 1}", b"01", b"1 2", b'"\x01"', b"nul"])
def test_what_is_no_json_is_told_so(raw):
    assert refusal(raw)[0] == 400
