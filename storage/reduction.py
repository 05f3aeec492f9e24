"""How much smaller the pictures became: what came, what is kept, by camera and day."""

from collections.abc import Iterable
from typing import Any, Final

from storage.errors import NotFoundError
from storage.reading import Reader, iso_time

_KEPT: Final = ("learning", "assigned", "novel", "outlier")
_DAY: Final = "COALESCE(substr(f.captured_at, 1, 10), date(f.arrived_at, 'unixepoch', 'localtime'))"
_SQL: Final = (
    f"SELECT camera.name AS camera, {_DAY} AS day,"
    f" CASE WHEN f.state IN {_KEPT} THEN 'kept'"
    " WHEN f.state IN ('exact_duplicate', 'near_duplicate') THEN 'redundant' ELSE f.state END"
    " AS what, count(*) AS frames, COALESCE(sum(f.size), 0) AS bytes"
    " FROM frames AS f JOIN cameras AS camera ON camera.id = f.camera_id"
    " WHERE f.state NOT IN ('pending', 'rejected', 'missing')"
)
_WHAT: Final = ("kept", "redundant", "trashed", "pruned")


def reduction(
    reader: Reader, *, camera: str | None = None, since: float | None = None
) -> dict[str, Any]:
    """The reduction report.

    Args:
        reader: The moment to describe.
        camera: Only the camera of this name.
        since: Only frames that arrived at or after this time (seconds since the epoch).

    Returns:
        `headline` (words), `since`, `total`, `cameras` (`camera` and numbers, by name) and `days`
        (`camera`, `day` of capture, numbers; oldest first). The numbers: `frames_before`,
        `bytes_before` (all pictures that were read and not taken away by others), `frames_after`,
        `bytes_after` (kept), `frames_redundant`, `bytes_redundant` (duplicates that are still
        there), `frames_trashed`, `bytes_trashed` (of these in the trash), `frames_freed`,
        `bytes_freed` (deleted).

    Raises:
        NotFoundError: No such camera.
    """
    sql, values = _SQL, list[object]()
    if camera is not None:
        if reader.one("SELECT 1 FROM cameras WHERE name = ?", (camera,)) is None:
            raise NotFoundError(
                f"There is no camera {camera}.", hint="`stillwatch status` lists them."
            )
        sql += " AND camera.name = ?"
        values.append(camera)
    if since is not None:
        sql += " AND f.arrived_at >= ?"
        values.append(since)
    rows = [dict(row) for row in reader.rows(f"{sql} GROUP BY 1, 2, 3", values)]
    days = sorted({(row["day"], row["camera"]) for row in rows})
    names = sorted({row["camera"] for row in rows})
    total = _numbers(rows)
    return {
        "headline": _headline(total),
        "since": iso_time(since),
        "total": total,
        "cameras": [
            {"camera": name} | _numbers(row for row in rows if row["camera"] == name)
            for name in names
        ],
        "days": [
            {"camera": name, "day": day} | numbers
            for (day, name), numbers in zip(days, _by_day(rows, days), strict=True)
        ],
    }


def _by_day(rows: list[dict[str, Any]], days: list[tuple[str, str]]) -> list[dict[str, int]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["day"], row["camera"]), []).append(row)
    return [_numbers(groups[key]) for key in days]


def _numbers(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    frames = dict.fromkeys(_WHAT, 0)
    sizes = dict.fromkeys(_WHAT, 0)
    for row in rows:
        frames[row["what"]] += row["frames"]
        sizes[row["what"]] += row["bytes"]
    return {
        "frames_before": sum(frames.values()),
        "bytes_before": sum(sizes.values()),
        "frames_after": frames["kept"],
        "bytes_after": sizes["kept"],
        "frames_redundant": frames["redundant"] + frames["trashed"],
        "bytes_redundant": sizes["redundant"] + sizes["trashed"],
        "frames_trashed": frames["trashed"],
        "bytes_trashed": sizes["trashed"],
        "frames_freed": frames["pruned"],
        "bytes_freed": sizes["pruned"],
    }


def _headline(total: dict[str, int]) -> str:
    before, after = total["frames_before"], total["frames_after"]
    if not before:
        return "no pictures yet"
    pictures = "1 picture" if before == 1 else f"{before:,} pictures"
    return f"{pictures} became {after:,}"
