"""How alike pictures are: vectors from the database or from the encoder, compared exactly.

Candidates come from the Annoy snapshot where there is one that fits; frames that it does not know
are all compared. For a frame of the state folder nothing heavier than numpy is imported.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cli.context import Context
from storage.errors import NoStateError, NotFoundError, UsageError
from storage.names import CLUSTER, FRAME, format_id, path_fields
from storage.neighbours import Snapshot, write_snapshot
from storage.projection import SAMPLE_ROWS, FloatArray, fit_projection, unit_length
from storage.reading import Reader
from storage.resolving import resolve_frame

IntArray = NDArray[np.int64]

COMPARABLE: Final = (
    "exact_duplicate",
    "near_duplicate",
    "novel",
    "assigned",
    "outlier",
    "learning",
)
"""States of the frames that are on disk and have a vector."""
EXACT_FRAMES: Final = 5_000
"""Up to so many frames are all compared, in less than a tenth of a second."""
CANDIDATES: Final = 1_000
"""Candidates fetched, at least, and ranked exactly, in some 10 ms. Of 100,000 planted frames they
hold the ten nearest of a frame inside a cluster, and 97 % of those of a frame outside all."""
CANDIDATES_PER_ANSWER: Final = 8
WIDER: Final = 4
LARGEST_SHARE: Final = 4
"""Beyond one candidate in four frames, comparing all of them is as fast."""
BLOCK_ROWS: Final = 500
DECIMALS: Final = 6
"""Of a distance; float32 holds no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which frames may be in the answer; times in seconds since the epoch, both inclusive."""

    camera: str | None = None
    cluster: int | None = None
    states: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None

    def __post_init__(self) -> None:
        others = [state for state in self.states if state not in COMPARABLE]
        if others:
            raise UsageError(
                f"A frame that is {others[0]} has no picture to compare with.",
                hint=f"States that have one: {', '.join(COMPARABLE)}.",
            )

    def condition(self) -> tuple[str, list[object]]:
        """SQL over the table `frames` AS frame, and its parameters."""
        states = self.states or COMPARABLE
        tests = [f"frame.state IN ({', '.join('?' * len(states))})"]
        values: list[object] = [*states]
        taken = "COALESCE(frame.captured_ns / 1e9, frame.arrived_at)"
        for test, value in (
            ("frame.camera_id = (SELECT id FROM cameras WHERE name = ?)", self.camera),
            ("frame.cluster_id = ?", self.cluster),
            (f"{taken} >= ?", self.since),
            (f"{taken} <= ?", self.until),
        ):
            if value is not None:
                tests.append(test)
                values.append(value)
        return " AND ".join(tests), values


@dataclass(frozen=True, slots=True)
class _Query:
    """A question: the vector (dim,), unit length, and among which frames (n,), ascending."""

    reader: Reader
    space: Any
    vector: FloatArray
    frames: IntArray
    k: int
    search_k: int


def compare(context: Context, first: str, second: str) -> dict[str, Any]:
    """How alike two pictures are: `a`, `b`, `percent` (0 to 100) and cosine `distance`.

    Works without a state folder too, then for two picture files.
    """
    try:
        reader = Reader(context.state_dir)
    except NoStateError:
        vectors = [_encode(context, Path(name), None) for name in (first, second)]
    else:
        with reader:
            space = _space(reader)
            vectors = [_vector(context, reader, space, name)[0] for name in (first, second)]
    cosine = float(vectors[0] @ vectors[1])
    return {"a": first, "b": second, **_likeness(cosine)}


def nearest(
    context: Context,
    image: str,
    filters: Filters,
    *,
    k: int,
    trees: int | None,
    search_k: int,
) -> list[dict[str, Any]]:
    """The frames on disk that are most like a picture, most alike first.

    Args:
        context: The invocation.
        image: A frame id, the path of a frame's file, or any picture file.
        filters: Frames that may be in the answer.
        k: How many; fewer only where there are fewer.
        trees: Size of an Annoy forest built for this question; None takes the stored snapshot.
        search_k: Annoy's number of nodes to look at; -1 is its default.

    Returns:
        For each frame its id, camera, path, time, state and cluster, `percent` and `distance`.
    """
    with Reader(context.state_dir) as reader:
        space = _space(reader)
        if space is None:
            return []
        vector, itself = _vector(context, reader, space, image)
        frames = _eligible(reader, filters)
        query = _Query(reader, space, vector, frames[frames != itself], k, search_k)
        if trees is not None:
            candidates = _ask_new_forest(query, trees)
        else:
            folder = context.state_dir / "neighbours"
            candidates = _candidates(query, lambda: Snapshot.open(folder, space["name"]))
        ids, cosines = _cosines(query, candidates)
        # what rounds to the same distance is equally alike: then the older frame comes first
        best = np.argsort(-cosines.round(DECIMALS), kind="stable")[:k]
        return [_found(reader, int(ids[row]), float(cosines[row])) for row in best]


def _eligible(reader: Reader, filters: Filters) -> IntArray:
    """Frames (n,) that the filters let through, ascending."""
    condition, values = filters.condition()
    # one text from SQLite and one parse by numpy: a tenth of the time of 100,000 rows
    sql = f"SELECT group_concat(frame.id) AS ids FROM frames AS frame WHERE {condition}"
    text = reader.one(sql, values)["ids"] or ""
    return np.sort(np.fromstring(text, dtype=np.int64, sep=","))


def _candidates(query: _Query, open_snapshot: Any) -> IntArray:
    """Frames among which the nearest are; all of them where no snapshot helps."""
    if len(query.frames) <= EXACT_FRAMES:
        return query.frames
    snapshot = open_snapshot()
    if snapshot is None:
        return query.frames
    # frames embedded or found again since the snapshot was made
    unknown = query.frames[~np.isin(query.frames, snapshot.ids)]
    known = len(query.frames) - len(unknown)
    needed = max(CANDIDATES, CANDIDATES_PER_ANSWER * query.k)
    # who names the number of nodes wants to see what so many find
    enough = query.k if query.search_k > 0 else needed // 2
    wanted = needed * len(snapshot) // max(1, known)
    while wanted * LARGEST_SHARE <= len(snapshot):
        proposed = snapshot.query(query.vector, wanted, query.search_k)
        fitting = proposed[np.isin(proposed, query.frames)]
        if len(fitting) >= enough:
            return np.concatenate([fitting, unknown])
        wanted *= WIDER
    return query.frames


def _ask_new_forest(query: _Query, trees: int) -> IntArray:
    """Candidates from an Annoy forest over exactly the frames in question."""
    frames = query.frames
    sample = np.linspace(0, len(frames) - 1, min(len(frames), SAMPLE_ROWS)).astype(np.int64)
    blocks = [rows for _, rows in _vectors(query, frames[sample])]
    projection = fit_projection(np.concatenate([np.empty((0, query.space["dim"])), *blocks]))
    with tempfile.TemporaryDirectory(prefix="stillwatch-similar-") as name:
        folder, space = Path(name), query.space["name"]
        write_snapshot(folder, 1, space, projection, _vectors(query, frames), trees=trees)
        snapshot = Snapshot.open(folder, space)
        wanted = max(CANDIDATES, CANDIDATES_PER_ANSWER * query.k)
        return frames if snapshot is None else snapshot.query(query.vector, wanted, query.search_k)


def _cosines(query: _Query, frames: IntArray) -> tuple[IntArray, FloatArray]:
    """Ids (n,), ascending, and exact cosines (n,) of these frames with the question."""
    ids, cosines = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for block, rows in _vectors(query, np.sort(frames)):
        ids.append(block)
        cosines.append(unit_length(rows) @ query.vector)
    return np.concatenate(ids), np.concatenate(cosines)


def _vectors(query: _Query, frames: IntArray) -> Iterator[tuple[IntArray, NDArray[np.float16]]]:
    """Ids and vectors (n, dim) of these frames, block by block, by ascending id."""
    for start in range(0, len(frames), BLOCK_ROWS):
        numbers = ",".join(map(str, frames[start : start + BLOCK_ROWS].tolist()))
        rows = list(
            query.reader.rows(
                "SELECT frame_id, vector FROM embeddings"
                f" WHERE space_id = ? AND frame_id IN ({numbers}) ORDER BY frame_id",
                (query.space["id"],),
            )
        )
        data = b"".join(row["vector"] for row in rows)
        ids = np.array([row["frame_id"] for row in rows], dtype=np.int64)
        yield ids, np.frombuffer(data, dtype="<f2").reshape(len(rows), query.space["dim"])


def _likeness(cosine: float) -> dict[str, float]:
    cosine = min(1.0, max(-1.0, cosine))
    return {"percent": round(100 * max(0.0, cosine), 2), "distance": round(1 - cosine, DECIMALS)}


def _found(reader: Reader, number: int, cosine: float) -> dict[str, Any]:
    row = reader.one(
        "SELECT frame.path, frame.captured_at, frame.state, frame.cluster_id,"
        " camera.name AS camera, cluster.name AS cluster_name FROM frames AS frame"
        " JOIN cameras AS camera ON camera.id = frame.camera_id"
        " LEFT JOIN clusters AS cluster ON cluster.id = frame.cluster_id WHERE frame.id = ?",
        (number,),
    )
    return {
        "frame": format_id(FRAME, number),
        "camera": row["camera"],
        **path_fields(row["path"]),
        "captured_at": row["captured_at"],
        "state": row["state"],
        "cluster": format_id(CLUSTER, row["cluster_id"]),
        "cluster_name": row["cluster_name"],
        **_likeness(cosine),
    }


def _space(reader: Reader) -> Any:
    """The embedding space that serves; None before the first vector.

    That of the clustering, else that of the encoder, else the newest: while another encoder is
    being prepared or its vectors are not complete, the old space answers.
    """
    for key, field in (("space", "name"), ("encoder", "space")):
        stored = reader.meta(key)
        name = stored.get(field) if isinstance(stored, dict) else None
        row = reader.one("SELECT * FROM spaces WHERE name = ?", (name,))
        if row is not None:
            return row
    return reader.one("SELECT * FROM spaces ORDER BY id DESC LIMIT 1")


def _vector(
    context: Context, reader: Reader, space: Any, image: str
) -> tuple[FloatArray, int | None]:
    """The vector of what was named, unit length, and its number if it is a frame."""
    try:
        number = resolve_frame(reader, image)
    except NotFoundError:
        if not Path(image).is_file():
            raise NotFoundError(
                f"There is no frame and no picture file {image}.",
                hint="Name a frame id (f12) or a picture file.",
            ) from None
        return _encode(context, Path(image), space), None
    row = reader.one(
        "SELECT vector FROM embeddings WHERE frame_id = ? AND space_id = ?",
        (number, -1 if space is None else space["id"]),
    )
    if row is None:
        raise NotFoundError(
            f"f{number} has no vector: its picture was not read.",
            hint=f"`stillwatch why f{number}` says why.",
        )
    # float16 rounding leaves the length within 1e-3 of 1; a percent should not show that
    return unit_length(np.frombuffer(row["vector"], dtype="<f2")[np.newaxis])[0], number


def _encode(context: Context, file: Path, space: Any) -> FloatArray:
    from cli.picture_vectors import encode_file

    if space is None:
        return encode_file(context, file, space=None, encoder_id=None)
    return encode_file(context, file, space=space["name"], encoder_id=space["encoder"])
