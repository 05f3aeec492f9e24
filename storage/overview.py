"""The state of everything on one page: the contract's `status` object.

Everything is computed from one `Reader`, that is from one moment of the database.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from storage.camera_health import Waiting, hindrances, left_out
from storage.file_gate import HALTED_KEY
from storage.names import RUN, format_id, path_fields
from storage.reading import Reader, iso_time
from storage.states import GONE, STATES
from storage.verdicts import evaluation_key

LATENCY_FRAMES: Final = 1000
"""Frames over which the latency percentiles are taken (contract, section 7)."""

WATCHED_FRAMES: Final = 1000
"""Newest judged frames over which the realised false-novel rate is told; storage/novelty.py."""

_WATCHED: Final = frozenset({"learning", "watching", "polling"})
_TROUBLE: Final = frozenset({"degraded", "offline"})
_ARCHIVE: Final = (
    'looks like an archive (many sizes, no view shared); if it is one, set kind = "archive" for it'
)


def camera_summaries(reader: Reader, *, running: bool) -> list[dict[str, Any]]:
    """Every camera with its condition and frame counts, for people.

    Keys: those of the contract's `cameras`, and `reason` (of the state), `waiting`, `left_out`
    (storage/camera_health.py), `hindrances` (the same in words), `filing` (why it is off),
    `suggestion` (what the owner may want to set), `ignored`, `total`, `pending`,
    `novel`, `duplicates`, `rejected`. With no daemon nobody watches, so `learning`, `watching` and
    `polling` become
    `inactive`; what the last daemon found wrong stays to be seen.
    """
    counts: dict[int, dict[str, int]] = {}
    for row in reader.rows("SELECT camera_id, state, count(*) AS n FROM frames GROUP BY 1, 2"):
        counts.setdefault(row["camera_id"], {})[row["state"]] = row["n"]
    rates = _novelty_rates(reader)
    waits = Waiting.of_cameras(reader)
    cameras = []
    for row in reader.rows("SELECT * FROM cameras ORDER BY id"):
        states = counts.get(row["id"], {})
        idle = not running and row["state"] in _WATCHED
        waiting, left = waits.get(row["id"], Waiting()), left_out(reader, row["id"])
        cameras.append(
            {
                "name": row["name"],
                **path_fields(row["root"], "root"),
                "state": "inactive" if idle else row["state"],
                "last_arrival_at": iso_time(row["last_arrival_at"]),
                "kind": row["kind"],
                "novelty": rates.get(row["id"]),
                "dedup_test": _dedup_test(reader, row["id"]),
                "reason": None if idle else row["state_reason"],
                "waiting": asdict(waiting),
                "left_out": {kind: found["count"] for kind, found in left.items()},
                "hindrances": hindrances(waiting, left),
                "filing": _why_nothing_is_filed(reader, row["writable"]),
                "suggestion": _suggestion(reader, row),
                "ignored": row["ignored"],
                "total": sum(states.values()),
                "pending": states.get("pending", 0),
                "novel": states.get("novel", 0),
                "duplicates": states.get("exact_duplicate", 0) + states.get("near_duplicate", 0),
                "rejected": states.get("rejected", 0),
            }
        )
    return cameras


def _why_nothing_is_filed(reader: Reader, writable: bool) -> str | None:
    if not writable:
        return "cannot be written: nothing is filed there"
    halted = reader.meta(HALTED_KEY)
    return f"{halted} Nothing is moved until the next start." if halted else None


def _suggestion(reader: Reader, camera: Any) -> str | None:
    """What the owner may want to set; nothing where they set the kind themselves."""
    resembles = reader.meta(f"resembles_archive:{camera['id']}")
    return _ARCHIVE if resembles and camera["kind_source"] != "owner" else None


def status(reader: Reader, *, running: bool) -> dict[str, Any]:
    """The `status` object of the contract.

    Args:
        reader: The moment to describe.
        running: Whether a daemon holds the lock of the state folder.
    """
    cameras = camera_summaries(reader, running=running)
    frames, sizes = _count_frames(reader)
    shown = (
        "name",
        "root",
        "root_b64",
        "state",
        "reason",
        "last_arrival_at",
        "kind",
        "novelty",
        "dedup_test",
        "waiting",
        "left_out",
    )
    return {
        "state": _overall_state(reader, cameras) if running else "stopped",
        "cameras": [{key: camera[key] for key in shown if key in camera} for camera in cameras],
        "frames": frames,
        "ignored": sum(camera["ignored"] for camera in cameras),
        "clusters": reader.one("SELECT count(*) FROM clusters WHERE state = 'active'")[0],
        "encoder": _encoder(reader),
        "last_recluster": _last_run(reader, "recluster"),
        "last_dedup": _last_run(reader, "dedup"),
        "bytes": sizes,
        "latency_ms": _latency(reader),
        "job": job_under_way(reader, time.time()) if running else None,
        "last_prune": _last_prune(reader),
        "settings": _settings(reader) if running else None,
        "paused": reader.meta("paused") if running else None,
    }


def _dedup_test(reader: Reader, camera_id: int) -> dict[str, Any] | None:
    """What the last `dedup evaluate` found on a camera; None where there was none.

    Keys: `at`; `quiet_found` (the owner's choice at the time or null), `limit`, `predicted` (share
    of the quiet that this limit finds, or null); `quiet_pairs`, `quiet_pairs_found`, `things`,
    `things_lost` (pairs that were made).
    """
    told = reader.meta(evaluation_key(camera_id))
    if not isinstance(told, dict):
        return None
    quiet = [one for one in told["pairs"] if one["kind"] == "quiet"]
    things = [one for one in told["pairs"] if one["kind"] != "quiet"]
    return {
        "at": iso_time(told["at"]),
        **{key: told[key] for key in ("quiet_found", "limit", "predicted")},
        "quiet_pairs": sum(one["pairs"] for one in quiet),
        "quiet_pairs_found": sum(one["merged"] for one in quiet),
        "things": sum(one["pairs"] for one in things),
        "things_lost": sum(one["merged"] for one in things),
    }


def _novelty_rates(reader: Reader) -> dict[int, dict[str, Any]]:
    """The promised and the realised false-novel rate of each camera that was judged.

    Keys: `promised`, `realised` (share of alarms among the newest judged frames; every alarm
    counts, as nobody can know which of them are right), `frames` (how many those are), `alpha`.
    """
    space = reader.meta("space")
    if not isinstance(space, dict):
        return {}
    promised = reader.meta("false_novel_rate")
    rates = {}
    for row in reader.rows("SELECT * FROM camera_novelty WHERE space_id = ?", (space["id"],)):
        log = json.loads(row["payload"] or "{}")
        frames = min(int(log.get("judged", 0)), WATCHED_FRAMES)
        rates[row["camera_id"]] = {
            "promised": promised,
            "realised": round(len(log["recent"]) / frames, 5) if frames else None,
            "frames": frames,
            "alpha": round(row["alpha"], 6),
        }
    return rates


def _overall_state(reader: Reader, cameras: Sequence[dict[str, Any]]) -> str:
    trouble = any(camera["state"] in _TROUBLE for camera in cameras)
    return "degraded" if trouble or reader.meta("paused") else "running"


def _count_frames(reader: Reader) -> tuple[dict[str, int], dict[str, int]]:
    counts = dict.fromkeys(STATES, 0)
    sizes = {"total": 0, "redundant": 0, "freed": 0}
    sql = (
        "SELECT state, duplicate_of IS NOT NULL AS redundant, count(*) AS n,"
        " COALESCE(sum(size), 0) AS size FROM frames GROUP BY 1, 2"
    )
    for row in reader.rows(sql):
        counts[row["state"]] += row["n"]
        if row["state"] == "pruned":
            sizes["freed"] += row["size"]
        elif row["state"] not in GONE:
            sizes["total"] += row["size"]
            sizes["redundant"] += row["size"] if row["redundant"] else 0
    total = sum(counts.values())
    on_disk = total - sum(counts[state] for state in GONE)
    return {"total": total, "on_disk": on_disk, **counts}, sizes


def _encoder(reader: Reader) -> dict[str, Any]:
    """The encoder that serves; `switch` while it is changed.

    Keys of `switch`: `to`, `undoes` (run id or null), `stage`, `done`, `total`, `left_out` (frames
    that cannot be encoded), `seconds_left` (null: unknown).
    """
    stored = reader.meta("encoder")
    facts = stored if isinstance(stored, dict) else {}
    return {
        "id": facts.get("id"),
        "space": facts.get("space"),
        "state": facts.get("state", "unknown"),
        "progress": facts.get("progress"),
        "switch": facts.get("switch"),
    }


def job_under_way(reader: Reader, now: float) -> dict[str, Any] | None:
    """The job under way; None where the daemon does none.

    Keys: `kind`, `stage`, `done`, `total` (0: unknown), `seconds`, `seconds_left` (null: unknown).
    """
    told = reader.meta("job")
    if not isinstance(told, dict):
        return None
    left = told["seconds_left"]
    return {
        **{key: told[key] for key in ("kind", "stage", "done", "total")},
        "seconds": round(max(0.0, now - told["started_at"]), 1),
        "seconds_left": None if left is None else round(max(0.0, left - (now - told["at"])), 1),
    }


def _last_run(reader: Reader, kind: str) -> dict[str, Any] | None:
    row = reader.one(
        "SELECT * FROM runs WHERE kind = ? AND finished_at IS NOT NULL ORDER BY id DESC LIMIT 1",
        (kind,),
    )
    if row is None:
        return None
    return {
        "at": iso_time(row["finished_at"]),
        "seconds": row["seconds"],
        "run": format_id(RUN, row["id"]),
    }


def _last_prune(reader: Reader) -> dict[str, Any] | None:
    """The last time that prune worked; None where it never did.

    Keys: `at`, `trashed`, `deleted`, `skipped` (frames), `bytes_freed`, `missing_bytes` (what the
    owner's goal lacks; null without one), `note` (what held it back).
    """
    told = reader.meta("last_prune")
    if not isinstance(told, dict):
        return None
    numbers = ("trashed", "deleted", "skipped", "bytes_freed", "missing_bytes")
    return {
        "at": iso_time(told["at"]),
        **{key: told[key] for key in numbers},
        "note": " ".join(told["notes"]) or None,
    }


def _settings(reader: Reader) -> dict[str, Any] | None:
    """What the daemon made of its settings file when it last read it (SIGHUP, or its start).

    Keys: `at`, `problem` (why the file was refused and the old settings stay, or null), `restart`
    (settings of the file that need a restart, or null).
    """
    told = reader.meta("settings")
    if not isinstance(told, dict):
        return None
    return {
        "at": iso_time(told["at"]),
        "problem": told["problem"],
        "restart": ", ".join(told["restart"]) or None,
    }


def _latency(reader: Reader) -> dict[str, float] | None:
    values = sorted(
        row[0]
        for row in reader.rows(
            "SELECT latency_ms FROM frames WHERE latency_ms IS NOT NULL ORDER BY id DESC LIMIT ?",
            (LATENCY_FRAMES,),
        )
    )
    if not values:
        return None
    # Nearest rank: a percentile is a latency that some frame really had.
    return {
        name: round(values[math.ceil(share * len(values)) - 1], 1)
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }
