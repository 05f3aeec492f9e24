"""Writing down what the judge decided, where nothing stands against it.

Verdicts that were applied, runs whose keepers are chosen and a human's word are not reopened.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection

from storage import frames
from storage.duplicate_runs import break_chains, untouchable
from storage.duplicate_words import words

SAID_APART: Final = "kept: its owner said that it is no duplicate of f{keeper}"


def write_verdicts(
    connection: Connection, camera_id: int, due: Sequence[int], result: Mapping[str, Any]
) -> None:
    """Store the verdicts of one call of the judge.

    Args:
        connection: Of a write transaction.
        camera_id: Whose frames they are.
        due: The frames that were handed to the judge; they count as judged from now on.
        result: Of the judging process (daemon/jobs/dedup_child.py).
    """
    said = words(connection, camera_id)
    fixed = untouchable(connection, camera_id, said.decided)
    near: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    for verdict in result["verdicts"]:
        if verdict["frame"] in fixed:
            continue
        row = _row(verdict)
        if result["moving"] or row["duplicate_of"] is None:
            row |= {"duplicate_kind": None, "duplicate_of": None}
        elif said.forbid(row["id"], row["duplicate_of"]):
            reason = SAID_APART.format(keeper=row["duplicate_of"])
            row |= {"duplicate_kind": None, "duplicate_of": None, "reason": reason}
        (kept if row["duplicate_of"] is None else near).append(row)
    frames.update_frames(connection, kept)
    frames.update_frames(connection, near)
    frames.update_frames(connection, [{"id": frame_id, "judged": True} for frame_id in due])
    _write_qualities(connection, result.get("measured", {}))
    break_chains(connection, camera_id)


def _row(verdict: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": verdict["frame"],
        "duplicate_kind": None if verdict["keeper"] is None else "near",
        "duplicate_of": verdict["keeper"],
        "change_score": verdict["score"],
        "change_tile": verdict["tile"],
        "reason": verdict["reason"],
        "judged": True,
    }


def _write_qualities(connection: Connection, measured: Mapping[str, Sequence[float]]) -> None:
    """Store sharpness and exposure of the frames that the judge saw."""
    rows = [
        {"id": int(frame_id), "sharpness": sharpness, "exposure": exposure}
        for frame_id, (sharpness, exposure) in measured.items()
    ]
    frames.update_frames(connection, rows)
