"""Ids and paths as other programs see them, over any bytes."""

import base64
import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from storage.names import (
    CLUSTER,
    FRAME,
    display_path,
    format_id,
    is_utf8,
    natural_key,
    path_fields,
    printable_path,
)

paths = st.one_of(st.binary(max_size=60), st.text(max_size=30).map(lambda t: t.encode("utf-8")))


def test_ids() -> None:
    assert format_id(FRAME, 12) == "f12"
    assert format_id(CLUSTER, 3) == "c3"
    assert format_id(FRAME, None) is None


@given(paths)
@example(b"caf\xe9.jpg")
@example("\u00e9\ud83d".encode("utf-8", "surrogatepass"))
def test_a_program_gets_every_path_back(path: bytes) -> None:
    fields = path_fields(path, "original_path")
    if is_utf8(path):
        assert fields == {"original_path": path.decode("utf-8")}
    else:
        assert base64.b64decode(fields["original_path_b64"]) == path
        assert "\\x" in fields["original_path"]
    fields["original_path"].encode("utf-8")  # JSON needs no surrogates


def test_bytes_that_are_not_utf8_are_escaped() -> None:
    assert display_path(b"caf\xe9.jpg") == "caf\\xe9.jpg"


@given(paths)
@example("safe\u202egpj.exe\x1b[2J\n".encode())
@example("\u061c\u2028\ufeff\u200b".encode())
def test_a_name_never_forges_a_line_or_steers_a_terminal(path: bytes) -> None:
    shown = printable_path(path)
    forbidden = {"Cc", "Zl", "Zp", "Cf"}
    assert not [c for c in shown if unicodedata.category(c) in forbidden]


@given(st.lists(paths, max_size=8))
@example([b"img10", b"img2", b"img02", b"IMG", b"", b"1", b"01"])
def test_the_natural_order_is_total(names: list[bytes]) -> None:
    ordered = sorted(names, key=natural_key)
    names.reverse()
    assert sorted(names, key=natural_key) == ordered
    assert len({natural_key(name) for name in names}) == len(set(names))


def test_numbers_count_as_numbers() -> None:
    names = [b"img10.jpg", b"img9.jpg", b"img09.jpg", b"a2b10", b"a2b9"]
    assert sorted(names, key=natural_key) == [
        b"a2b9",
        b"a2b10",
        b"img09.jpg",
        b"img9.jpg",
        b"img10.jpg",
    ]
