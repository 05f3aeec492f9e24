"""When a frame was taken, and by what evidence (contract, section 3)."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from daemon.ingest.capture_time import (
    counter_of,
    from_exif,
    from_mtime,
    from_name,
    zone_of,
)

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def machine_in_tokyo() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.parametrize(
    ("name", "at"),
    [
        (b"20240102_030405.jpg", "2024-01-02T03:04:05+00:00"),
        (b"20240102-030405.jpg", "2024-01-02T03:04:05+00:00"),
        (b"20240102T030405.jpg", "2024-01-02T03:04:05+00:00"),
        (b"cam1_20240102030405_7.jpg", "2024-01-02T03:04:05+00:00"),
        (b"x20240102_030405Z.png", "2024-01-02T03:04:05+00:00"),
        (b"19900101_000000.jpg", "1990-01-01T00:00:00+00:00"),
        (b"21001231_235959.jpg", "2100-12-31T23:59:59+00:00"),
        (b"99999999_999999_20240102_030405.jpg", "2024-01-02T03:04:05+00:00"),
        (b"20240102_20240102_030405.jpg", "2024-01-02T03:04:05+00:00"),
        (b"\xff20240102_030405.jpg", "2024-01-02T03:04:05+00:00"),
    ],
)
def test_a_date_in_a_name(name: bytes, at: str) -> None:
    found = from_name(name, UTC)
    assert found is not None
    assert (found.source, found.at) == ("name", at)
    assert found.ns == int(datetime.fromisoformat(at).timestamp()) * 10**9


@pytest.mark.parametrize(
    "name",
    [
        b"20240102.jpg",  # a day is no time
        b"20240102_0304.jpg",
        b"2024-01-02_03-04-05.jpg",
        b"20240102 030405.jpg",
        b"120240102_030405.jpg",  # nine digits
        b"20240102_0304055.jpg",
        b"202401020304050.jpg",  # fifteen digits
        b"20241302_030405.jpg",  # no such month
        b"20240230_030405.jpg",
        b"20240102_240000.jpg",
        b"19891231_235959.jpg",
        b"21010101_000000.jpg",
        b"IMG_0012.jpg",
        b"",
    ],
)
def test_no_date_in_a_name(name: bytes) -> None:
    assert from_name(name, UTC) is None


def test_zoneless_times_are_of_the_cameras_zone() -> None:
    summer = from_name(b"20240702_030405.jpg", BERLIN)
    winter = from_exif("2024-01-02T03:04:05", BERLIN)
    assert summer is not None and summer.at == "2024-07-02T03:04:05+02:00"
    assert winter is not None and winter.at == "2024-01-02T03:04:05+01:00"
    assert from_mtime(0, BERLIN).at == "1970-01-01T01:00:00+01:00"


@pytest.mark.usefixtures("machine_in_tokyo")
def test_without_a_setting_the_machines_zone_counts() -> None:
    zone = zone_of(None)
    found = from_name(b"20240102_030405.jpg", zone)
    assert found is not None and found.at == "2024-01-02T03:04:05+09:00"
    assert found.ns == int(datetime(2024, 1, 1, 18, 4, 5, tzinfo=UTC).timestamp()) * 10**9
    assert from_mtime(0, zone).at == "1970-01-01T09:00:00+09:00"


def test_exif_with_its_own_offset_and_fraction() -> None:
    found = from_exif("2024-01-02T03:04:05.250000-05:00", BERLIN)
    assert found is not None
    assert (found.source, found.at) == ("exif", "2024-01-02T03:04:05.250000-05:00")
    expected = int(datetime(2024, 1, 2, 8, 4, 5, tzinfo=UTC).timestamp()) * 10**9
    assert found.ns == expected + 250_000_000


@pytest.mark.parametrize(
    "text",
    [None, "2024-02-30T00:00:00", "2024-01-02T03:04:61", "1980-01-01T00:00:00", "nonsense"],
)
def test_unusable_exif(text: str | None) -> None:
    assert from_exif(text, UTC) is None


def test_the_owners_pattern_replaces_the_rule() -> None:
    found = from_name(b"cam 02.01.2024 03h04.jpg", BERLIN, "cam %d.%m.%Y %Hh%M")
    assert found is not None and found.at == "2024-01-02T03:04:00+01:00"
    assert from_name(b"20240102_030405.jpg", BERLIN, "cam %d.%m.%Y") is None
    assert from_name(b"12:30.jpg", BERLIN, "%H:%M") is None  # no year
    assert from_name(b"\xff.jpg", BERLIN, "%Y") is None
    assert from_name(b"a.jpg", BERLIN, "%Q") is None
    bare = from_name(b"2024-01-02", BERLIN, "%Y-%m-%d")
    assert bare is not None and bare.at == "2024-01-02T00:00:00+01:00"


@pytest.mark.parametrize("ns", [-(2**63), -1, 7, 2**62, 2**63 - 1])
def test_any_mtime_that_can_be_stored_gives_an_order(ns: int) -> None:
    found = from_mtime(ns, BERLIN)
    assert (found.source, found.ns) == ("mtime", ns)
    assert found.at is not None and datetime.fromisoformat(found.at).utcoffset() is not None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"IMG_0012.JPG", (b"IMG_#.JPG", 12)),
        (b"2026/IMG_0012.JPG", (b"2026/IMG_#.JPG", 12)),
        (b"7.png", (b"#.png", 7)),
        (b"a1b22.png", (b"a1b#.png", 22)),
        (b"12", (b"#", 12)),
        (b"frame (3).jpg", (b"frame (#).jpg", 3)),
        (b"IMG_0012.jp2", (b"IMG_#.jp2", 12)),  # the digit of the extension is no counter
        (b"cam.0007", (b"cam.#", 7)),  # an extension of digits alone is one
        (b"9/picture.jpg", None),  # of the folder, not of the name
        (b"9/picture.jp2", None),
        (b"picture.jpg", None),
        (b"n1234567890123456.jpg", None),  # no counter has 16 digits
    ],
)
def test_counters(path: bytes, expected: tuple[bytes, int] | None) -> None:
    assert counter_of(path) == expected
