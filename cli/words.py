"""The state of a frame in words and numbers, for `why`."""

import json
from collections.abc import Mapping
from typing import Any

from storage.names import printable_path


def explain(row: Any, keeper: Any | None) -> list[str]:
    """Sentences that say why a frame is in its state; only facts that are stored.

    Args:
        row: The frame, as `storage.listing.frame_row` gives it.
        keeper: The row of the frame that it duplicates, or None.
    """
    facts = {key: row[key] for key in row.keys()}  # noqa: SIM118 - a sqlite3.Row iterates values
    lines = [_headline(facts)]
    if facts["reason"]:
        lines.append(f"Reason: {facts['reason']}")
    if keeper is not None:
        lines.extend(_duplicate(facts, keeper))
    if facts["presence"] == "here" and facts["stage"] == "embedded":
        lines.extend(_place(facts))
    return lines


def _headline(facts: Mapping[str, Any]) -> str:
    cluster = _cluster(facts)
    meanings = {
        "pending": "it was seen and is not decided yet",
        "learning": "its picture was read; there is no clustering yet to compare it with",
        "assigned": f"it looks like cluster {cluster}",
        "novel": "it is unlike everything the cameras have shown so far",
        "outlier": "the last recluster left it outside every cluster",
        "exact_duplicate": f"it has the same bytes as f{facts['duplicate_of']}",
        "near_duplicate": f"nothing visible changed since f{facts['duplicate_of']}",
        "rejected": "the file is whole, but no usable picture",
        "missing": "the file is gone while its folder is there",
        "trashed": "it was moved to the trash",
        "pruned": "it was deleted by the policy that the owner switched on",
    }
    state = str(facts["state"])
    path = printable_path(bytes(facts["path"]))
    return f"f{facts['id']} ({path}) is {state.replace('_', ' ')}: {meanings[state]}."


def _cluster(facts: Mapping[str, Any]) -> str:
    name = facts["cluster_name"]
    return f"c{facts['cluster_id']}" + (f" ({name})" if name else "")


def _duplicate(facts: Mapping[str, Any], keeper: Any) -> list[str]:
    path = printable_path(bytes(keeper["path"]))
    lines = [f"Keeper: f{keeper['id']} ({path}), {keeper['state'].replace('_', ' ')}."]
    if facts["duplicate_kind"] == "exact":
        lines.append(f"Both have the SHA-256 {bytes(facts['sha256']).hex()}.")
    return lines


def _place(facts: Mapping[str, Any]) -> list[str]:
    lines = []
    if facts["distance"] is not None:
        lines.append(_distance(facts))
        lines.append(_calibration(facts["p_value"], facts["membership"]))
    if facts["novelty"]:
        kind = {"scene": "the whole scene is new", "place": "something in one place is new"}
        lines.append(f"Novelty: {kind.get(facts['novelty'], facts['novelty'])}.")
    if facts["outlier_score"] is not None:
        lines.append(
            f"Outlier score: {facts['outlier_score']:.3f} (0 = well inside, 1 = far outside)."
        )
    if facts["change_score"] is not None:
        lines.append(
            f"Change score: {facts['change_score']:.2f} (1 = as much as this camera's own noise)."
        )
    tile = json.loads(facts["change_tile"] or "null")
    if tile:
        left, top, width, height = (round(100 * share) for share in tile)
        lines.append(
            f"It changed most in the tile {left} % from the left and {top} % from the top"
            f" ({width} % wide, {height} % high)."
        )
    if facts["duplicate_of"] is not None and facts["cluster_id"] is not None:
        lines.append(f"It keeps its cluster {_cluster(facts)}.")
    return lines


def _distance(facts: Mapping[str, Any]) -> str:
    nearest = facts["nearest_frame_id"]
    if nearest == facts["id"]:
        return "It is a representative: new frames of the cluster are measured against it."
    to = f" to f{nearest}" if nearest is not None else ""
    limit = facts["limit_now"]
    if limit is None:
        return f"Distance{to}: {facts['distance']:.4f}."
    side = "within" if facts["distance"] <= limit else "beyond"
    return f"Distance{to}: {facts['distance']:.4f}, {side} the limit (max_distance) {limit:.4f}."


def _calibration(p_value: float | None, membership: float | None) -> str:
    if p_value is None and membership is not None:
        return "p-value: none; a recluster placed it, and only arrivals are judged by one."
    if p_value is None:
        return (
            "p-value: not calibrated yet (fewer than 100 scores), so the pooled quantile decides."
        )
    return f"p-value: {p_value:.4g}, the share of usual frames that are at least this far away."
