"""Stored verdicts in capture order, read-only: what labels are compared with."""

from collections.abc import Iterator
from typing import Any

from storage.names import natural_key
from storage.reading import Reader

_SQL = (
    "SELECT frame.id, frame.camera_id, frame.path, frame.original_path, frame.captured_ns,"
    " frame.time_source, frame.counter_pattern, frame.counter, frame.duplicate_of, frame.presence,"
    " camera.name AS camera, camera.root FROM frames AS frame"
    " JOIN cameras AS camera ON camera.id = frame.camera_id WHERE frame.stage = 'embedded'"
)


def verdicts(reader: Reader, camera: str | None) -> Iterator[Any]:
    """Rows of embedded frames, camera by camera in capture order (contract, section 3).

    Keys: `id`, `camera_id`, `camera`, `root`, `path`, `original_path`, `duplicate_of`,
    `presence`.
    Frames that left the disk are among them: their verdict is what took them away.

    Args:
        reader: The moment to look at.
        camera: Name of the only camera; None: all.
    """
    if camera is None:
        rows = reader.rows(_SQL)
    else:
        rows = reader.rows(f"{_SQL} AND camera.name = ?", (camera,))
    yield from sorted(rows, key=_order_key)


def _order_key(row: Any) -> tuple[Any, ...]:
    name = natural_key(bytes(row["original_path"]))
    if row["time_source"] == "counter":
        pattern = bytes(row["counter_pattern"] or b"")
        return (row["camera_id"], 1, 0, pattern, row["counter"] or 0, name)
    return (row["camera_id"], 0, row["captured_ns"] or 0, b"", 0, name)


def evaluation_key(camera_id: int) -> str:
    """Key in `meta` of what the last self-test of a camera found (`dedup evaluate`)."""
    return f"dedup_evaluation:{camera_id}"
