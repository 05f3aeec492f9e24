"""Lists of a state folder as the contract's JSON has them (section 7), and plans.

Ids are strings, times ISO-8601 with zone, paths text. Lists are iterators over one `Reader`, so
a million frames are printed without being held.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from storage.names import CLUSTER, FRAME, RUN, display_path, format_id, path_fields
from storage.reading import Reader, iso_time
from storage.resolving import not_found

_FRAME_SQL: Final = (
    "SELECT f.*, camera.name AS camera_name, camera.root AS camera_root,"
    " cluster.name AS cluster_name,"
    " COALESCE(f.max_distance, cluster.max_distance) AS limit_now"
    " FROM frames AS f JOIN cameras AS camera ON camera.id = f.camera_id"
    " LEFT JOIN clusters AS cluster ON cluster.id = f.cluster_id"
)


def frame_object(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the frame query as the contract's `frames` object, keys in its order."""
    return {
        "id": format_id(FRAME, row["id"]),
        "camera": row["camera_name"],
        **path_fields(row["path"]),
        **path_fields(row["original_path"], "original_path"),
        "sha256": _hex(row["sha256"]),
        "captured_at": row["captured_at"],
        "time_source": row["time_source"],
        "arrived_at": iso_time(row["arrived_at"]),
        "state": row["state"],
        "cluster": format_id(CLUSTER, row["cluster_id"]),
        "distance": row["distance"],
        "max_distance": row["limit_now"],
        "p_value": row["p_value"],
        "novelty": row["novelty"],
        "outlier_score": row["outlier_score"],
        "duplicate_of": format_id(FRAME, row["duplicate_of"]),
        "change_score": row["change_score"],
        "reason": row["reason"],
    }


def _hex(digest: bytes | None) -> str | None:
    return None if digest is None else bytes(digest).hex()


def frame_row(reader: Reader, number: int) -> Any:
    """The full row of a frame, with `camera_name`, `camera_root`, `cluster_name`, `limit_now`.

    Raises:
        NotFoundError: No such frame.
    """
    row = reader.one(f"{_FRAME_SQL} WHERE f.id = ?", (number,))
    if row is None:
        raise not_found(FRAME, f"{FRAME}{number}")
    return row


def frames(
    reader: Reader,
    *,
    states: Sequence[str] = (),
    camera: str | None = None,
    cluster: int | None = None,
    since: float | None = None,
    limit: int | None = None,
) -> Iterator[dict[str, Any]]:
    """The contract's `frames` objects in order of arrival.

    Args:
        reader: The moment to list.
        states: Only these states; empty: all.
        camera: Only the camera of this name.
        cluster: Only this cluster's frames.
        since: Only frames that arrived at or after this time (seconds since the epoch).
        limit: Only the latest so many of them.
    """
    tests: list[str] = []
    values: list[object] = []
    if states:
        tests.append(f"f.state IN ({', '.join('?' * len(states))})")
        values.extend(states)
    for test, value in (
        ("camera.name = ?", camera),
        ("f.cluster_id = ?", cluster),
        ("f.arrived_at >= ?", since),
    ):
        if value is not None:
            tests.append(test)
            values.append(value)
    sql = f"{_FRAME_SQL} WHERE {' AND '.join(tests)}" if tests else _FRAME_SQL
    if limit is None:
        sql += " ORDER BY f.id"
    else:
        sql = f"SELECT * FROM ({sql} ORDER BY f.id DESC LIMIT ?) ORDER BY id"
        values.append(limit)
    return (frame_object(row) for row in reader.rows(sql, values))


def clusters(reader: Reader) -> Iterator[dict[str, Any]]:
    """The contract's `clusters` objects, oldest id first; frames that are gone do not count."""
    sql = (
        "SELECT cluster.*, members.* FROM clusters AS cluster LEFT JOIN ("
        " SELECT cluster_id, count(*) AS size,"
        " min(COALESCE(captured_ns / 1e9, arrived_at)) AS first_seen,"
        " max(COALESCE(captured_ns / 1e9, arrived_at)) AS last_seen FROM frames"
        " WHERE cluster_id IS NOT NULL AND state NOT IN ('missing', 'pruned') GROUP BY cluster_id"
        ") AS members ON members.cluster_id = cluster.id"
        " WHERE cluster.state = 'active' ORDER BY cluster.id"
    )
    for row in reader.rows(sql):
        yield {
            "id": format_id(CLUSTER, row["id"]),
            "name": row["name"],
            "size": row["size"] or 0,
            "medoid": format_id(FRAME, row["medoid_frame_id"]),
            "max_distance": row["max_distance"],
            "first_seen": iso_time(row["first_seen"]),
            "last_seen": iso_time(row["last_seen"]),
            "pinned": bool(row["pinned"]),
            "ignored": bool(row["ignored"]),
        }


def novelties(reader: Reader) -> list[dict[str, Any]]:
    """The `frames` objects of what is novel, scene novelties before place novelties.

    Place novelties that follow each other in one camera are one entry, that of the first of them;
    `more` lists the ids of the others.
    """
    rows = list(reader.rows(f"{_FRAME_SQL} WHERE f.state = 'novel' ORDER BY f.id"))
    scenes = [frame_object(row) | {"more": []} for row in rows if row["novelty"] != "place"]
    places: list[dict[str, Any]] = []
    open_runs: dict[int, tuple[int, dict[str, Any]]] = {}
    for row in (row for row in rows if row["novelty"] == "place"):
        last = open_runs.get(row["camera_id"])
        if last is not None and _is_next_novelty(reader, row, last[0]):
            last[1]["more"].append(format_id(FRAME, row["id"]))
            entry = last[1]
        else:
            entry = frame_object(row) | {"more": []}
            places.append(entry)
        open_runs[row["camera_id"]] = (row["id"], entry)
    return scenes + places


def _is_next_novelty(reader: Reader, row: Any, before: int) -> bool:
    """Whether no usual frame of the camera lies between this one and the novel one before it."""
    between = reader.one(
        "SELECT 1 FROM frames WHERE camera_id = ? AND id > ? AND id < ? AND stage = 'embedded'"
        " AND state NOT IN ('novel', 'exact_duplicate', 'near_duplicate') LIMIT 1",
        (row["camera_id"], before, row["id"]),
    )
    return between is None


def run_object(row: Any) -> dict[str, Any]:
    """A row of the table `runs` as the contract's `runs` object."""
    return {
        "id": format_id(RUN, row["id"]),
        "kind": row["kind"],
        "state": row["state"],
        "counts": json.loads(row["counts"] or "null") or {},
        "bytes": row["bytes"],
        "created_at": iso_time(row["created_at"]),
        "started_at": iso_time(row["started_at"]),
        "finished_at": iso_time(row["finished_at"]),
        "seconds": row["seconds"],
    }


def runs(reader: Reader) -> Iterator[dict[str, Any]]:
    """The contract's `runs` objects, oldest first."""
    return (run_object(row) for row in reader.rows("SELECT * FROM runs ORDER BY id"))


def newest_dedup_run(reader: Reader) -> int | None:
    """The number of the newest dedup plan that was not discarded, or None."""
    row = reader.one(
        "SELECT max(id) AS id FROM runs"
        " WHERE kind = 'dedup' AND (state <> 'undone' OR digest IS NOT NULL)"
    )
    return None if row["id"] is None else int(row["id"])


def run_entries(reader: Reader, run: int) -> list[dict[str, Any]]:
    """The plan entries of a run, in order: what is to happen or happened to which frame.

    Keys: `frame`, `keeper`, `path`, `target`, `distance`, `change_score`, `reason`, `bytes`,
    `state` (planned, applied, skipped, undone), `outcome`, `sha256`, `keeper_sha256`: what the
    plan was made for. A keeper with other bytes would be another frame, so its row tells.
    """
    sql = (
        "SELECT entry.*, frame.path AS path, COALESCE(entry.size, frame.size) AS bytes,"
        " COALESCE(entry.sha256, frame.sha256) AS content, keeper.sha256 AS keeper_content"
        " FROM plan_entries AS entry JOIN frames AS frame ON frame.id = entry.frame_id"
        " LEFT JOIN frames AS keeper ON keeper.id = entry.keeper_id"
        " WHERE entry.run_id = ? ORDER BY entry.id"
    )
    return [
        {
            "frame": format_id(FRAME, row["frame_id"]),
            "keeper": format_id(FRAME, row["keeper_id"]),
            **path_fields(row["path"]),
            "target": None if row["target"] is None else display_path(row["target"]),
            "distance": row["distance"],
            "change_score": row["change_score"],
            "reason": row["reason"],
            "bytes": row["bytes"],
            "state": row["state"],
            "outcome": row["outcome"],
            "sha256": _hex(row["content"]),
            "keeper_sha256": _hex(row["keeper_content"]),
        }
        for row in reader.rows(sql, (run,))
    ]


def dedup_plan(reader: Reader, run: int | None) -> dict[str, Any]:
    """The contract's `dedup plan` object; without a run an empty plan."""
    groups: dict[str, list[dict[str, Any]]] = {}
    hashes: dict[str, str | None] = {}
    size = 0
    for entry in [] if run is None else run_entries(reader, run):
        if entry["keeper"] is None:
            continue
        shown = ("frame", "path", "path_b64", "distance", "change_score", "reason", "sha256")
        member = {key: entry[key] for key in shown if key in entry}
        groups.setdefault(entry["keeper"], []).append(member)
        hashes[entry["keeper"]] = entry["keeper_sha256"]
        size += entry["bytes"] or 0
    return {
        "run": format_id(RUN, run),
        "groups": [
            {"keeper": keeper, "keeper_sha256": hashes[keeper], "members": members}
            for keeper, members in groups.items()
        ],
        "frames_redundant": sum(len(members) for members in groups.values()),
        "bytes_redundant": size,
    }
