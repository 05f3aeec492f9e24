"""When a frame was taken, and by what evidence (contract, section 3).

Order of evidence: EXIF, a date in the name, a counter in the name, the file's mtime.
"""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from daemon.messages import TimeSource

_NAME_DATE = re.compile(rb"(?<!\d)(\d{8})[-_T](\d{6})(?!\d)|(?<!\d)(\d{14})(?!\d)")
_COUNTER = re.compile(rb"(\d+)(?=[^\d/]*\Z)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureTime:
    """A capture time and its evidence; `at` is ISO-8601 with zone, `ns` since the epoch."""

    source: TimeSource
    at: str | None
    ns: int | None


def zone_of(name: str | None) -> tzinfo | None:
    """The zone of zoneless times: an IANA name, or None for the machine's own."""
    return ZoneInfo(name) if name else None


def _located(moment: datetime, zone: tzinfo | None, source: TimeSource) -> CaptureTime | None:
    if not 1990 <= moment.year <= 2100:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone) if zone is not None else moment.astimezone()
    ns = int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000
    return CaptureTime(source=source, at=moment.isoformat(), ns=ns)


def from_name(name: bytes, zone: tzinfo | None, pattern: str | None = None) -> CaptureTime | None:
    """The date in a file name: YYYYMMDD[-_T]HHMMSS or 14 digits, years 1990 to 2100.

    With the owner's `strptime` pattern the name without its extension must match that instead.
    """
    if pattern is not None:
        stem = name.rpartition(b".")[0] or name
        try:
            return _located(
                datetime.strptime(stem.decode("utf-8", "replace"), pattern),
                zone,
                "name",
            )
        except ValueError:
            return None
    for match in _NAME_DATE.finditer(name):
        digits = (match[3] or match[1] + match[2]).decode("ascii")
        try:
            found = _located(datetime.strptime(digits, "%Y%m%d%H%M%S"), zone, "name")
        except ValueError:
            continue
        if found is not None:
            return found
    return None


def from_exif(text: str | None, zone: tzinfo | None) -> CaptureTime | None:
    """The EXIF time as the decode child hands it over, or None when it is unusable."""
    if text is None:
        return None
    try:
        return _located(datetime.fromisoformat(text), zone, "exif")
    except (ValueError, OverflowError):
        return None


def from_mtime(mtime_ns: int, zone: tzinfo | None) -> CaptureTime:
    """The file's modification time; the last resort."""
    moment = datetime.fromtimestamp(mtime_ns / 1e9, UTC)
    local = moment.astimezone(zone)
    return CaptureTime(source="mtime", at=local.isoformat(), ns=mtime_ns)


def counter_of(path: bytes) -> tuple[bytes, int] | None:
    """The counter in a name and its pattern (folder and name without the number).

    The last run of digits counts: `2026/IMG_0012.JPG` is (b"2026/IMG_#.JPG", 12). Digits of the
    extension (`.jp2`) count only where it has nothing else (`cam.0012`).
    """
    end = len(path)
    extension = os.path.splitext(path)[1]
    if not extension[1:].isdigit():
        end -= len(extension)
    match = _COUNTER.search(path, 0, end)
    if match is None or len(match[1]) > 15:
        return None
    return path[: match.start()] + b"#" + path[match.end() :], int(match[1])
