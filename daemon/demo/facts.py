"""What the demo tells its onlooker: read from the database, never from the script of the play."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from storage.errors import StillwatchError
from storage.names import printable_path
from storage.reading import Reader

EVENTS: Final = ("arrived", "refused", "clustered", "novel", "duplicates", "filed")
"""Everything that an onlooker of the demo can see happen, in its usual order."""

_FRAMES_A_LINE: Final = 25
_DUPLICATES_A_LINE: Final = 10


class Onlooker:
    """Turns what newly stands in the database into plain lines; each fact is told once.

    Args:
        state_dir: The state folder of the demo's daemon.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._told: dict[str, int] = {}
        self._named: set[int] = set()
        self.seen: set[str] = set()
        """Which of `EVENTS` happened so far."""

    def look(self) -> list[str]:
        """Lines about what happened since the last call; empty while there is no database."""
        parts: dict[str, Callable[[Reader], Iterator[str]]] = {
            "arrived": self._arrived,
            "refused": self._refused,
            "clustered": self._clustered,
            "novel": self._novel,
            "duplicates": self._duplicates,
            "filed": self._filed,
        }
        lines = []
        try:
            with Reader(self._state_dir) as reader:
                for event in EVENTS:
                    found = list(parts[event](reader))
                    if found:
                        self.seen.add(event)
                    lines += found
        except StillwatchError:
            return lines  # not there yet, or busy for a moment: the next look sees the rest
        return lines

    def _grown(self, key: str, value: int, step: int = 1) -> bool:
        """Whether `value` rose by `step` since it was told, or above zero for the first time."""
        before = self._told.get(key, 0)
        if value <= before or (before and value - before < step):
            return False
        self._told[key] = value
        return True

    def _new(self, frame_id: int) -> bool:
        known = frame_id in self._named
        self._named.add(frame_id)
        return not known

    def _arrived(self, reader: Reader) -> Iterator[str]:
        known = _count(reader, "stage <> 'pending'")
        if self._grown("arrived", known, _FRAMES_A_LINE):
            yield "the first frame has arrived" if known == 1 else f"{known} frames have arrived"

    def _refused(self, reader: Reader) -> Iterator[str]:
        query = "SELECT id, original_path, reason FROM frames WHERE state = 'rejected'"
        for row in reader.rows(query):
            if self._new(row["id"]):
                yield f"rejected: {printable_path(row['original_path'])}: {row['reason']}"

    def _clustered(self, reader: Reader) -> Iterator[str]:
        query = "SELECT max(id) AS id, max(seconds) AS seconds FROM runs WHERE kind = 'recluster'"
        run = reader.one(query)
        if run["id"] is None or not self._grown("run", run["id"]):
            return
        sizes = reader.rows(
            "SELECT count(*) AS n FROM frames JOIN clusters ON clusters.id = cluster_id"
            " WHERE clusters.state = 'active' GROUP BY cluster_id ORDER BY n DESC"
        )
        counts = [row["n"] for row in sizes]
        listed = ", ".join(str(count) for count in counts)
        noun = "cluster" if len(counts) == 1 else "clusters"
        yield f"clustering r{run['id']}: {len(counts)} {noun} (of {listed} frames)"

    def _novel(self, reader: Reader) -> Iterator[str]:
        query = "SELECT id, original_path, distance, max_distance FROM frames WHERE state = 'novel'"
        for row in reader.rows(query):
            if self._new(row["id"]):
                name = printable_path(row["original_path"])
                numbers = ""
                if row["distance"] is not None and row["max_distance"] is not None:
                    numbers = f" (distance {row['distance']:.3f}, usual up to "
                    numbers += f"{row['max_distance']:.3f})"
                yield f"NOVEL: {name} looks like nothing seen before{numbers}"

    def _duplicates(self, reader: Reader) -> Iterator[str]:
        near = _count(reader, "state = 'near_duplicate'")
        exact = _count(reader, "state = 'exact_duplicate'")
        if self._grown("near", near, _DUPLICATES_A_LINE):
            noun = "frame shows" if near == 1 else "frames show"
            yield f"duplicates: {near} {noun} nothing that a kept frame does not show"
        if self._grown("exact", exact):
            yield f"duplicates: {exact} exact {'copy' if exact == 1 else 'copies'}"

    def _filed(self, reader: Reader) -> Iterator[str]:
        counts = {}
        for kind in ("clusters", "duplicates", "novel"):
            below = f"stillwatch/{kind}/".encode()
            counts[kind] = _count(
                reader, "presence = 'here' AND substr(path, 1, ?) = ?", len(below), below
            )
        total = sum(counts.values())
        if self._grown("filed", total, _DUPLICATES_A_LINE):
            listed = ", ".join(f"{count} to {kind}/" for kind, count in counts.items() if count)
            yield f"filed: {total} files into the folder stillwatch/ ({listed})"


def _count(reader: Reader, condition: str, *parameters: object) -> int:
    row = reader.one(f"SELECT count(*) AS n FROM frames WHERE {condition}", parameters)
    return int(row["n"])
