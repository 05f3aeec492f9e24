"""The life of the clusters as a timeline: what clusterings found, and what humans said.

Plain reading like storage/listing.py. Clusterings write events; a human's word is a decision,
and where it changes which frames are where, an event too, in the run of the decision.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

from storage.names import CLUSTER, RUN, format_id
from storage.reading import Reader, iso_time

_EVENT_SQL: Final = (
    "SELECT event.at, event.id, event.kind, event.cluster_id, event.run_id, event.data,"
    " word.actor, cluster.name FROM events AS event"
    " LEFT JOIN clusters AS cluster ON cluster.id = event.cluster_id"
    " LEFT JOIN (SELECT run_id, max(actor) AS actor FROM decisions GROUP BY run_id) AS word"
    " ON word.run_id = event.run_id"
    " WHERE event.kind LIKE 'cluster\\_%' ESCAPE '\\'"
)
_DECISION_SQL: Final = (
    "SELECT decision.*, cluster.name FROM decisions AS decision"
    " LEFT JOIN clusters AS cluster ON cluster.id = decision.cluster_id"
    " WHERE decision.kind IN ('rename', 'pin', 'ignore', 'merge', 'split')"
)
_SWITCHED: Final = {
    ("pin", True): ("pinned", "pinned: keeps id and name even when it is empty"),
    ("pin", False): ("unpinned", "no longer pinned"),
    ("ignore", True): ("ignored", "ignored: its frames never alarm"),
    ("ignore", False): ("heeded", "no longer ignored: its frames may alarm"),
}


def cluster_history(reader: Reader, cluster: int | None = None) -> list[dict[str, Any]]:
    """What happened to the clusters, oldest first.

    Keys: `at`, `event` (born, split, merged, retired, emptied, returned, renamed, pinned,
    unpinned, ignored, heeded, undone), `cluster`, `name` (its name now), `frames`, `into` (where
    they went), `run`, `by` (the human, else null), `text`.

    Args:
        reader: The moment to list.
        cluster: Only what concerns this one, as source or target; None: all.
    """
    found = [*_events(reader), *_words(reader)]
    found.sort(key=lambda entry: entry[0])
    wanted = format_id(CLUSTER, cluster)
    return [row for _, touched, row in found if wanted is None or wanted in touched]


_Entry = tuple[tuple[float, int, int], set[str | None], dict[str, Any]]
"""Order, the clusters it concerns, and the row."""


def _events(reader: Reader) -> Iterator[_Entry]:
    for row in reader.rows(_EVENT_SQL):
        data = json.loads(row["data"] or "null") or {}
        event = row["kind"].removeprefix("cluster_")
        into, source = _cluster(data.get("into")), _cluster(data.get("from"))
        line = _line(row, row["at"], event, _event_text(event, data, into, source), row["actor"])
        line |= {"frames": data.get("frames"), "into": into}
        yield (row["at"], 1, row["id"]), {line["cluster"], into, source}, line


def _words(reader: Reader) -> Iterator[_Entry]:
    for row in reader.rows(_DECISION_SQL):
        data = json.loads(row["data"] or "null") or {}
        own = format_id(CLUSTER, row["cluster_id"])
        touched = {own, *map(_cluster, data.get("clusters", ()))}
        if row["kind"] == "rename":
            name = data["after"]
            text = "name taken away" if name is None else f"named {name}"
            line = _line(row, row["at"], "renamed", text, row["actor"])
            yield (row["at"], 2, row["id"]), touched, line
        elif row["kind"] in ("pin", "ignore"):
            event, text = _SWITCHED[row["kind"], bool(data["after"])]
            line = _line(row, row["at"], event, text, row["actor"])
            yield (row["at"], 2, row["id"]), touched, line
        if row["undone_at"] is not None:
            others = ", ".join(sorted(name for name in touched - {own} if name))
            what = f"the {row['kind']}{f' with {others}' if others else ''}"
            text = f"{what} of {format_id(RUN, row['run_id'])} was undone"
            line = _line(row, row["undone_at"], "undone", text, None)
            yield (row["undone_at"], 3, row["id"]), touched, line


def _line(row: Any, at: float, event: str, text: str, by: str | None) -> dict[str, Any]:
    return {
        "at": iso_time(at),
        "event": event,
        "cluster": format_id(CLUSTER, row["cluster_id"]),
        "name": row["name"],
        "frames": None,
        "into": None,
        "run": format_id(RUN, row["run_id"]),
        "by": by,
        "text": text,
    }


def _cluster(number: object) -> str | None:
    return format_id(CLUSTER, number) if isinstance(number, int) else None


def _event_text(event: str, data: dict[str, Any], into: str | None, source: str | None) -> str:
    number = data.get("frames")
    frames = "its frames" if number is None else f"{number} frame{'' if number == 1 else 's'}"
    match event:
        case "born":
            origin = f", split off from {source}" if source else ""
            origin = ", from the novel frames" if data.get("from") == "pool" else origin
            return f"new cluster of {frames}{origin}"
        case "split":
            return f"{frames} of it became {into}"
        case "merged":
            return f"{frames} went into {into}"
        case "returned":
            return f"came back with {frames}"
        case "emptied":
            return f"empty for now, kept all the same; {frames} went elsewhere"
        case "retired":
            return f"ended; {frames} went elsewhere"
        case _:
            return event.replace("_", " ")
