"""Embedding spaces as the command line shows them: what each holds, and what one lacks."""

from typing import Any, Final

from storage.names import FRAME, format_id, path_fields
from storage.reading import Reader

_GAPS: Final = (
    "SELECT frames.id, frames.path, camera.name AS camera, told.reason FROM frames"
    " JOIN cameras AS camera ON camera.id = frames.camera_id"
    " LEFT JOIN (SELECT frame_id, json_extract(data, '$.reason') AS reason, max(id)"
    "  FROM events WHERE kind = 'no_vector' AND json_extract(data, '$.space') = :space"
    "  GROUP BY frame_id) AS told ON told.frame_id = frames.id"
    " WHERE frames.stage = 'embedded' AND frames.presence IN ('here', 'trashed')"
    " AND NOT EXISTS (SELECT 1 FROM embeddings WHERE embeddings.frame_id = frames.id"
    "  AND embeddings.space_id = :space)"
)


def spaces(reader: Reader) -> list[dict[str, Any]]:
    """Every space that holds vectors, serves, or is being filled, oldest first.

    Keys: `id`, `space` (name), `encoder`, `dim`, `frames` (with a vector), `use` (serving, next,
    or empty).
    """
    serving, switch = reader.meta("space") or {}, reader.meta("space_next") or {}
    uses = {switch.get("space_id"): "next", serving.get("id"): "serving"}
    rows = reader.rows(
        "SELECT spaces.*, (SELECT count(*) FROM embeddings WHERE space_id = spaces.id) AS frames"
        " FROM spaces ORDER BY id"
    )
    found = [
        {
            "id": int(row["id"]),
            "space": row["name"],
            "encoder": row["encoder"],
            "dim": row["dim"],
            "frames": row["frames"],
            "use": uses.get(row["id"], ""),
        }
        for row in rows
    ]
    return [space for space in found if space["frames"] or space["use"]]


def space_bytes(reader: Reader, space: int) -> int:
    """Bytes of the vectors and tile maps of a space."""
    sizes = reader.one(
        "SELECT (SELECT COALESCE(sum(length(vector)), 0) FROM embeddings WHERE space_id = ?1)"
        " + (SELECT COALESCE(sum(length(grey) + COALESCE(length(tiles), 0)), 0) FROM signatures"
        "  WHERE space_id = ?1)",
        (space,),
    )
    return int(sizes[0])


def gaps(reader: Reader, space: int) -> list[dict[str, Any]]:
    """Frames on disk without a vector in a space: `frame`, `camera`, `path`, `reason`.

    The reason is null for a frame that was not tried yet.
    """
    rows = reader.rows(f"{_GAPS} ORDER BY frames.id".replace(":space", "?1"), (space,))
    return [
        {
            "frame": format_id(FRAME, row["id"]),
            "camera": row["camera"],
            **path_fields(row["path"]),
            "reason": row["reason"],
        }
        for row in rows
    ]


def gap_reason(reader: Reader, frame: int) -> str | None:
    """Why a frame has no vector in the space that serves; None where it has one or none is due."""
    serving = reader.meta("space")
    if not isinstance(serving, dict):
        return None
    sql = f"{_GAPS} AND frames.id = ?2".replace(":space", "?1")
    row = reader.one(sql, (serving["id"], frame))
    if row is None:
        return None
    return row["reason"] or "it was not encoded yet"
