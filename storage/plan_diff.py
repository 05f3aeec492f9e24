"""Two dedup plans side by side: what came in, what dropped out, what has another keeper."""

import json
from typing import Any, Final

from storage.errors import ConflictError
from storage.names import FRAME, RUN, format_id, path_fields
from storage.reading import Reader

_ENTRIES: Final = (
    "SELECT entry.frame_id, entry.keeper_id, entry.change_score, entry.reason, frame.path,"
    " frame.reason AS now"
    " FROM plan_entries AS entry JOIN frames AS frame ON frame.id = entry.frame_id"
    " WHERE entry.run_id = ? AND entry.keeper_id IS NOT NULL ORDER BY entry.frame_id"
)


def plan_diff(reader: Reader, first: int, second: int) -> dict[str, Any]:
    """What changed from one dedup plan to another.

    Args:
        reader: The moment to look at.
        first: Number of the earlier plan's run.
        second: Number of the later one's.

    Returns:
        `first`, `second` (run ids); `added`, `dropped`, `other_keeper`: lists of `frame`,
        `keeper` (in the later plan; of a dropped one in the earlier), `keeper_before`, `path`,
        `change_score`, `reason` (of a dropped one: why it is kept now), by frame.

    Raises:
        ConflictError: The entries of a plan were forgotten: it is old and was never applied.
    """
    before, after = _entries(reader, first), _entries(reader, second)
    both = before.keys() & after.keys()
    return {
        "first": format_id(RUN, first),
        "second": format_id(RUN, second),
        "added": [_entry(after[i], None) for i in after if i not in before],
        "dropped": [
            _entry(before[i], before[i]) | {"reason": before[i]["now"]}
            for i in before
            if i not in after
        ],
        "other_keeper": [
            _entry(after[i], before[i])
            for i in after
            if i in both and after[i]["keeper_id"] != before[i]["keeper_id"]
        ],
    }


def _entries(reader: Reader, run: int) -> dict[int, Any]:
    found = {int(row["frame_id"]): row for row in reader.rows(_ENTRIES, (run,))}
    counts = json.loads(
        reader.one("SELECT counts FROM runs WHERE id = ?", (run,))["counts"] or "null"
    )
    if not found and (counts or {}).get("entries"):
        raise ConflictError(
            f"The entries of {format_id(RUN, run)} were forgotten: only the newest plans and those"
            " that were applied are kept whole.",
            hint="`stillwatch runs` lists the plans; compare newer ones.",
        )
    return found


def _entry(row: Any, before: Any) -> dict[str, Any]:
    return {
        "frame": format_id(FRAME, row["frame_id"]),
        "keeper": format_id(FRAME, row["keeper_id"]),
        "keeper_before": None if before is None else format_id(FRAME, before["keeper_id"]),
        **path_fields(row["path"]),
        "change_score": row["change_score"],
        "reason": row["reason"],
    }
