"""Purchase files as text: P01 to P16 of the catalogue of faults."""

import pytest

from nextbuy.errors import ColumnError, EmptyDataError, UnreadableFileError
from tests.data.logs import HEADER, ids, read, rejected

ROWS = "u1,i1,2024-01-02\nu2,i2,2024-01-03\n"


def test_P01_byte_order_mark(tmp_path):
    purchases = read(tmp_path, b"\xef\xbb\xbf" + (HEADER + ROWS).encode())
    assert purchases.frame.columns == ["user_id", "item_id", "timestamp"]
    assert ids(purchases, "user_id") == ["u1", "u2"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_P02_utf16_with_byte_order_mark(tmp_path, encoding):
    text = "\ufeff" + HEADER + "ü1,Straße,2024-01-02\n"
    purchases = read(tmp_path, text.encode(encoding))
    assert ids(purchases) == ["Straße"]
    assert any("utf-" in guess for guess in purchases.guesses)


def test_P02_utf16_without_byte_order_mark_is_named(tmp_path):
    with pytest.raises(UnreadableFileError, match="utf-16-le"):
        read(tmp_path, (HEADER + ROWS).encode("utf-16-le"))


def test_P03_latin1_says_line_byte_and_encoding_hint(tmp_path):
    content = (HEADER + "u1,i1,2024-01-02\nu2,café,2024-01-02\n").encode("cp1252")
    with pytest.raises(UnreadableFileError, match=r"line 3, byte 49 is 0xe9.*--encoding cp1252"):
        read(tmp_path, content)
    assert content[49] == 0xE9
    assert ids(read(tmp_path, content, encoding="cp1252")) == ["i1", "café"]


def test_P04_encoding_changes_half_way(tmp_path):
    content = (HEADER + "u1,café,2024-01-02\n").encode() + "u2,thé,2024-01-02\n".encode("latin-1")
    purchases = read(tmp_path, content + b"u3,i3,2024-01-02\n")
    assert ids(purchases) == ["café", "i3"]
    assert rejected(purchases) == [(3, None, "not UTF-8")]


def test_P05_overlong_utf8_and_lone_surrogates(tmp_path):
    content = HEADER.encode() + b"u1,\xc0\xaf,2024-01-02\nu2,i2,2024-01-02\n"
    assert rejected(read(tmp_path, content)) == [(2, None, "not UTF-8")]
    lines = (
        b'{"user_id": "u1", "item_id": "\\ud800", "timestamp": "2024-01-02"}\n'
        b'{"user_id": "u2", "item_id": "\\ud83d\\ude00", "timestamp": "2024-01-02"}\n'
        b'{"user_id": "u3", "item_id": "\xed\xa0\x80", "timestamp": "2024-01-02"}\n'
    )
    purchases = read(tmp_path, lines, "log.jsonl")
    assert ids(purchases) == ["😀"]
    assert rejected(purchases) == [
        (1, None, "holds half of a surrogate pair"),
        (3, None, "not UTF-8"),
    ]


def test_P06_nul_inside_an_id(tmp_path):
    purchases = read(tmp_path, HEADER + "u\x001,i1,2024-01-02\nu2,i2,2024-01-02\n")
    assert ids(purchases, "user_id") == ["u2"]
    assert rejected(purchases) == [(2, "user_id", "holds a NUL character")]


def test_P07_semicolons_and_decimal_commas(tmp_path):
    content = "user_id;item_id;timestamp;price\nu1;i1;2024-01-02;1,50\nu2;i2;2024-01-03;1.299,00\n"
    purchases = read(tmp_path, content)
    assert purchases.frame["price"].to_list() == [1.5, 1299.0]
    assert "delimiter semicolon" in purchases.guesses
    assert "decimal comma in price" in purchases.guesses
    told = read(tmp_path, content, delimiter=";", decimal=",")
    assert told.frame.equals(purchases.frame)
    assert "decimal comma in price" not in told.guesses


def test_P07_a_decimal_point_is_not_taken_for_thousands(tmp_path):
    content = "user_id;item_id;timestamp;price\nu1;i1;2024-01-02;1,50\nu2;i2;2024-01-03;1.5\n"
    purchases = read(tmp_path, content, decimal=",")
    assert rejected(purchases) == [(3, "price", "is no finite number")]


def test_P08_mixed_delimiters(tmp_path):
    purchases = read(tmp_path, HEADER + ROWS + "u3;i3;2024-01-04\n")
    assert ids(purchases) == ["i1", "i2"]
    assert rejected(purchases) == [(4, None, "1 fields instead of 3")]
    assert purchases.rejects["raw"].to_list() == ["u3;i3;2024-01-04"]


@pytest.mark.parametrize(
    "rest", ["", 'u9,"x",2024-01-02\n', 'u9,x"\n', "u9,x,2024-01-02\n" * 30], ids=range(4)
)
def test_P09_unclosed_quote_names_the_line_where_it_opens(tmp_path, rest):
    with pytest.raises(UnreadableFileError, match="line 4 is not closed"):
        read(tmp_path, HEADER + ROWS + 'u3,"i3,2024-01-04\nu4,i4,2024-01-05\n' + rest)


def test_P10_newlines_quotes_and_delimiters_inside_quotes(tmp_path):
    content = HEADER + (
        'u1,"a,b",2024-01-02\n'
        'u2,"two\nlines",2024-01-02\n'
        'u3,"5"" pipe",2024-01-02\n'
        ',"x\n\ny",2024-01-02\n'
        '"u5","""",2024-01-02\n'
        "u6,,2024-01-02\n"
    )
    purchases = read(tmp_path, content)
    assert ids(purchases) == ["a,b", "two\nlines", '5" pipe', '"']
    assert rejected(purchases) == [(6, "user_id", "empty"), (10, "item_id", "empty")]
    assert purchases.rejects["raw"][0] == ',"x\n\ny",2024-01-02'


def test_P10_the_careful_way_reads_the_same_as_the_fast_one(tmp_path):
    regular = HEADER + 'u1,"a,b",2024-01-02\nu2,"two\nlines",2024-01-02\n"u5","""",2024-01-02\n'
    fast, careful = read(tmp_path, regular), read(tmp_path, regular + "u7\n")
    assert careful.frame.equals(fast.frame)
    assert rejected(careful) == [(6, None, "1 fields instead of 3")]


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_P11_any_line_end(tmp_path, end):
    purchases = read(tmp_path, (HEADER + ROWS + "u3,,2024-01-01\n").replace("\n", end))
    assert ids(purchases) == ["i1", "i2"]
    assert rejected(purchases) == [(4, "item_id", "empty")]
    assert purchases.rejects["raw"].to_list() == ["u3,,2024-01-01"]


@pytest.mark.parametrize("quote", ["", '"'])
def test_P11_mixed_line_ends(tmp_path, quote):
    content = (
        f"{HEADER}u1,i1,2024-01-02\r\n{quote}u2{quote},i2,2024-01-03\ru3,i3,2024-01-04\nu4,,\n"
    )
    purchases = read(tmp_path, content)
    assert ids(purchases) == ["i1", "i2", "i3"]
    assert rejected(purchases) == [(5, "item_id", "empty")]


def test_P12_ragged_rows(tmp_path):
    content = HEADER + "u1,i1\nu2,i2,2024-01-02,more\nu3,i3,2024-01-02\n"
    purchases = read(tmp_path, content)
    assert ids(purchases) == ["i3"]
    assert rejected(purchases) == [
        (2, None, "2 fields instead of 3"),
        (3, None, "4 fields instead of 3"),
    ]
    assert purchases.counts.rows_in == 3


def test_P13_duplicate_header_names(tmp_path):
    with pytest.raises(ColumnError, match="'item_id' twice: positions 2 and 3"):
        read(tmp_path, "user_id,item_id,item_id,timestamp\nu1,a,b,2024-01-02\n")


def test_P14_other_case_and_padding_are_recognised(tmp_path):
    purchases = read(tmp_path, " USER ID , Product_ID,Date\nu1,i1,2024-01-02\n")
    assert ids(purchases) == ["i1"]
    assert "item_id is the column 'Product_ID'" in purchases.guesses


def test_P14_missing_and_misspelt_columns_name_the_nearest(tmp_path):
    content = "user_id,itm_id,timestamp\nu1,i1,2024-01-02\n"
    with pytest.raises(ColumnError, match=r"itm_id.*Nearest is 'itm_id'.*--item-column"):
        read(tmp_path, content)
    with pytest.raises(ColumnError, match=r"no column 'item'.*Nearest is 'itm_id'"):
        read(tmp_path, content, item_column="item")
    assert ids(read(tmp_path, content, item_column="itm_id")) == ["i1"]


def test_P14_two_columns_that_could_be_one(tmp_path):
    with pytest.raises(ColumnError, match=r"2 columns that could be user_id.*--user-column"):
        read(tmp_path, "User ID,user-id,item_id,timestamp\nu1,u2,i1,2024-01-02\n")


def test_P15_no_header_line(tmp_path):
    with pytest.raises(ColumnError, match="--no-header"):
        read(tmp_path, ROWS)
    purchases = read(tmp_path, ROWS, header=False)
    assert ids(purchases, "user_id") == ["u1", "u2"]
    assert "item_id is column_2 (there is no header)" in purchases.guesses
    assert purchases.counts.rows_in == 2


@pytest.mark.parametrize(
    "content", ["", HEADER, HEADER.strip(), "\n \r\n\t\n", "\ufeff", HEADER + "\n\n"]
)
def test_P16_nothing_in_the_file(tmp_path, content):
    with pytest.raises(EmptyDataError, match=r"0 purchases in .*log\.csv"):
        read(tmp_path, content)
