"""The state of a frame in words and numbers, for `why`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from storage.names import printable_path

_NOVEL: Final = {
    "scene": "its scene is unlike everything the cameras have shown so far",
    "place": "something in one place of the picture is new",
}


def explain(row: Any, keeper: Any | None, gap: str | None = None) -> list[str]:
    """Sentences that say why a frame is in its state; only facts that are stored.

    Args:
        row: The frame, as `storage.listing.frame_row` gives it.
        keeper: The row of the frame that it duplicates, or None.
        gap: Why it has no vector of the encoder that serves; None where it has one.
    """
    facts = {key: row[key] for key in row.keys()}  # noqa: SIM118 - a sqlite3.Row iterates values
    lines = [_headline(facts)]
    if facts["reason"]:
        lines.append(f"Reason: {facts['reason']}")
    if keeper is not None:
        lines.extend(_duplicate(facts, keeper))
    if gap is not None:
        lines.append(f"It has no vector of the encoder in use, so nothing compares it: {gap}.")
    if facts["presence"] == "here" and facts["stage"] == "embedded":
        lines.extend(_place(facts))
    return lines


def _headline(facts: Mapping[str, Any]) -> str:
    cluster = _cluster(facts)
    meanings = {
        "pending": "it was seen and is not decided yet",
        "learning": "its picture was read; there is no clustering yet to compare it with",
        "assigned": f"it looks like cluster {cluster}",
        "novel": _NOVEL.get(facts["novelty"] or "scene", _NOVEL["scene"]),
        "outlier": "something like it was seen before, but no cluster is near enough to take it in",
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
    if facts["distance"] is not None or facts["novelty"] is not None:
        lines.append(_calibration(facts))
    lines.extend(_novel_place(facts))
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
        lines.append(f"It changed most in the tile {_where(tile)}.")
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


def _calibration(facts: Mapping[str, Any]) -> str:
    p_value, alpha = facts["p_value"], facts["alpha"]
    if p_value is None and facts["membership"] is not None:
        return "p-value: none; a recluster placed it, and only arrivals are judged by one."
    if p_value is None:
        return (
            "p-value: not calibrated yet (too few frames of this camera were judged), so what is"
            " usual for all cameras decides."
        )
    meaning = f"p-value: {p_value:.4g}, the share of usual frames that are at least this strange"
    if alpha is None:
        return f"{meaning}."
    if p_value < alpha:
        return f"{meaning}; novel because that is less than alpha, {alpha:.4g} at the time."
    if facts["novelty"]:
        return f"{meaning}; it belongs to a novel event that was under way (alpha {alpha:.4g})."
    return f"{meaning}; below alpha, {alpha:.4g} at the time, it would be novel."


def _novel_place(facts: Mapping[str, Any]) -> list[str]:
    """Where in the picture something is new."""
    tile = json.loads(facts["novel_tile"] or "null")
    if facts["novelty"] != "place" or not tile:
        return []
    return [f"The place that is least like anything this camera showed there: {_where(tile)}."]


def place_words(tile: Sequence[float]) -> str:
    """A tile (x, y, width, height as shares) in words: "upper left, 0.5 % of the picture"."""
    x, y, width, height = tile
    across, down = x + width / 2, y + height / 2
    row = "upper" if down < 1 / 3 else "lower" if down > 2 / 3 else ""
    column = "left" if across < 1 / 3 else "right" if across > 2 / 3 else "middle" if row else ""
    place = f"{row} {column}".strip() or "centre"
    return f"{place}, {100 * width * height:.1g} % of the picture"


def _where(tile: Sequence[float]) -> str:
    x, y, width, height = tile
    across, down = 100 * (x + width / 2), 100 * (y + height / 2)  # its middle, as in the reason
    return f"{place_words(tile)}, {across:.0f} % from the left and {down:.0f} % from the top"
