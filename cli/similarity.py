"""How alike pictures are: vectors from the database or from the encoder, compared exactly."""

import os
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from cli.context import Context
from daemon.encoders import registry
from daemon.ingest.decoder import ChildFailedError, DecodeChild
from daemon.messages import ByteArray, FloatArray
from daemon.settings import Settings, default_path, load_settings
from storage.errors import (
    EncoderMismatchError,
    NoStateError,
    NotFoundError,
    StillwatchError,
    UsageError,
)
from storage.names import CLUSTER, FRAME, format_id, path_fields
from storage.neighbours import Snapshot, write_snapshot
from storage.reading import Reader

CANDIDATES: Final = 4
"""Candidates fetched per frame listed: Annoy is approximate, the re-rank is exact."""

_HERE = "frame.presence = 'here' AND embedding.space_id = ?"


def compare(context: Context, first: str, second: str) -> dict[str, Any]:
    """How alike two pictures are: `a`, `b`, `percent` (0 to 100) and cosine `distance`.

    Works without a state folder too, then for two picture files.
    """
    try:
        reader = Reader(context.state_dir)
    except NoStateError:
        vectors = [_encode_file(context, Path(name), None) for name in (first, second)]
    else:
        with reader:
            space = _space(reader)
            vectors = [_vector(context, reader, space, name)[0] for name in (first, second)]
    cosine = float(vectors[0] @ vectors[1])
    return {"a": first, "b": second, **_likeness(cosine)}


def nearest(
    context: Context, image: str, *, k: int, trees: int | None, search_k: int
) -> list[dict[str, Any]]:
    """The frames on disk that are most like a picture, most alike first.

    Args:
        context: The invocation.
        image: A frame id, the path of a frame's file, or any picture file.
        k: How many at most.
        trees: Size of an Annoy forest built for this question; None takes the stored snapshot.
        search_k: Annoy's number of nodes to look at; -1 is its default.
    """
    with Reader(context.state_dir) as reader:
        space = _space(reader)
        if space is None:
            return []
        vector, itself = _vector(context, reader, space, image)
        wanted = CANDIDATES * (k + 1)
        if trees is not None:
            candidates = _ask_new_forest(reader, space, vector, wanted, trees, search_k)
        else:
            snapshot = Snapshot.open(context.state_dir / "neighbours")
            candidates = None if snapshot is None else snapshot.query(vector, wanted, search_k)
        # Without a snapshot (no recluster yet) there are few frames: all of them are compared.
        ids, vectors = _load_vectors(reader, space, candidates)
        cosines = vectors @ vector
        order = [row for row in np.argsort(-cosines, kind="stable") if ids[row] != itself][:k]
        return [_found(reader, int(ids[row]), float(cosines[row])) for row in order]


def _likeness(cosine: float) -> dict[str, float]:
    cosine = min(1.0, max(-1.0, cosine))
    return {"percent": round(100 * max(0.0, cosine), 2), "distance": round(1 - cosine, 6)}


def _found(reader: Reader, number: int, cosine: float) -> dict[str, Any]:
    row = reader.one(
        "SELECT frame.path, frame.cluster_id, camera.name FROM frames AS frame"
        " JOIN cameras AS camera ON camera.id = frame.camera_id WHERE frame.id = ?",
        (number,),
    )
    return {
        "frame": format_id(FRAME, number),
        "camera": row["name"],
        **path_fields(row["path"]),
        "cluster": format_id(CLUSTER, row["cluster_id"]),
        **_likeness(cosine),
    }


def _space(reader: Reader) -> Any:
    """The embedding space in use: the encoder's current one, else the newest; None: no vector."""
    stored = reader.meta("encoder")
    name = stored.get("space") if isinstance(stored, dict) else None
    row = reader.one("SELECT * FROM spaces WHERE name = ?", (name,))
    return row if row is not None else reader.one("SELECT * FROM spaces ORDER BY id DESC LIMIT 1")


def _vector(
    context: Context, reader: Reader, space: Any, image: str
) -> tuple[FloatArray, int | None]:
    try:
        number = reader.resolve_frame(image)
    except NotFoundError:
        if not Path(image).is_file():
            raise NotFoundError(
                f"There is no frame and no picture file {image}.",
                hint="Name a frame id (f12) or a picture file.",
            ) from None
        return _encode_file(context, Path(image), None if space is None else space["name"]), None
    row = reader.one(
        "SELECT vector FROM embeddings WHERE frame_id = ? AND space_id = ?",
        (number, -1 if space is None else space["id"]),
    )
    if row is None:
        raise NotFoundError(
            f"f{number} has no vector: its picture was not read.",
            hint=f"`stillwatch why f{number}` says why.",
        )
    return _unit(row["vector"]), number


def _unit(stored: bytes) -> FloatArray:
    # float16 rounding leaves the length within 1e-3 of 1; a percent should not show that.
    vector: FloatArray = np.frombuffer(stored, dtype="<f2").astype(np.float32)
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)


def _load_vectors(reader: Reader, space: Any, candidates: Any) -> tuple[Any, FloatArray]:
    sql = (
        "SELECT embedding.frame_id, embedding.vector FROM embeddings AS embedding"
        f" JOIN frames AS frame ON frame.id = embedding.frame_id WHERE {_HERE}"
    )
    rows = []
    if candidates is None:
        rows = list(reader.rows(sql, (space["id"],)))
    else:
        for number in candidates:
            rows.extend(
                reader.rows(f"{sql} AND embedding.frame_id = ?", (space["id"], int(number)))
            )
    ids = np.array([row["frame_id"] for row in rows], dtype=np.int64)
    vectors = [_unit(row["vector"]) for row in rows]
    return ids, np.stack(vectors) if vectors else np.zeros((0, space["dim"]), np.float32)


def _ask_new_forest(
    reader: Reader, space: Any, vector: FloatArray, wanted: int, trees: int, search_k: int
) -> Any:
    ids, vectors = _load_vectors(reader, space, None)
    if not len(ids):
        return ids
    with tempfile.TemporaryDirectory(prefix="stillwatch-similar-") as folder:
        write_snapshot(Path(folder), 1, ids, vectors, trees=trees)
        snapshot = Snapshot.open(Path(folder))
        return None if snapshot is None else snapshot.query(vector, wanted, search_k)


def _encode_file(context: Context, file: Path, space: str | None) -> FloatArray:
    settings = load_settings(
        context.config or default_path(context.state_dir), required=context.config is not None
    )
    cache = settings.encoder.cache or registry.default_cache_dir()
    encoder = registry.load(settings.encoder.id, cache, settings.encoder.threads)
    try:
        if space is not None and encoder.space != space:
            raise EncoderMismatchError(
                f"The frames were encoded by {space}, the settings name {encoder.space}.",
                hint="Compare with the settings that the daemon runs with (--config).",
            )
        pixels = _squeeze(file, encoder.input_size, settings)
        vector: FloatArray = encoder.encode(pixels[np.newaxis]).vectors[0]
        return vector
    finally:
        encoder.close()


def _squeeze(file: Path, size: tuple[int, int], settings: Settings) -> ByteArray:
    """The whole picture, upright, squeezed to (height, width): uint8 RGB, never cropped.

    Decoded as the daemon does it, in a limited process, so that one picture has one vector.
    """
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        raise UsageError(f"{file} cannot be read: {exc.strerror}.", path=str(file)) from exc
    child = DecodeChild(settings.ingest)
    try:
        answer, payload = child.ask(fd, size)
    except ChildFailedError as exc:
        raise StillwatchError(f"{file} cannot be decoded: {exc}.", path=str(file)) from exc
    finally:
        child.close()
        os.close(fd)
    refused = answer.get("refused") or answer.get("unreadable")
    if refused:
        raise StillwatchError(f"{file} is no usable picture: {refused}.", path=str(file))
    height, width = size
    pixels = np.frombuffer(payload, dtype=np.uint8, count=height * width * 3)
    return pixels.reshape(height, width, 3)
