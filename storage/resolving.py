"""Which row the owner means: ids and their unique prefixes, names of clusters, paths of files."""

import os
from pathlib import Path
from typing import Final

from storage.errors import NotFoundError, UsageError
from storage.names import CLUSTER, FRAME, RUN
from storage.reading import Reader

_TABLES: Final = {FRAME: "frames", CLUSTER: "clusters", RUN: "runs"}
_WORDS: Final = {FRAME: "frame", CLUSTER: "cluster", RUN: "run"}


def resolve_id(reader: Reader, kind: str, text: str) -> int:
    """The number of the id `text`, which may be a unique prefix; an exact id wins.

    Args:
        reader: Of one moment.
        kind: `FRAME`, `CLUSTER` or `RUN` of storage.names.
        text: `f12`, `12`, or a beginning of it such as `f1`.

    Raises:
        NotFoundError: No such id.
        UsageError: Several ids begin so.
    """
    digits = text.removeprefix(kind)
    if not (digits.isascii() and digits.isdigit()) or digits.startswith("0"):
        raise not_found(kind, text)
    table = _TABLES[kind]
    # Longer digits than any 64-bit id cannot name a row, nor be bound.
    exact = len(digits) < 19 and reader.one(f"SELECT 1 FROM {table} WHERE id = ?", (int(digits),))
    if exact:
        return int(digits)
    found = list(
        reader.rows(
            f"SELECT id FROM {table} WHERE CAST(id AS TEXT) LIKE ? ORDER BY id LIMIT 3",
            (f"{digits}%",),
        )
    )
    if not found:
        raise not_found(kind, text)
    if len(found) > 1:
        some = ", ".join(f"{kind}{row['id']}" for row in found)
        raise UsageError(
            f"More than one {_WORDS[kind]} begins with {text}.", hint=f"Among them: {some}."
        )
    return int(found[0]["id"])


def not_found(kind: str, text: str) -> NotFoundError:
    """The error that says that `text` names no row."""
    plural = f"{_WORDS[kind]}s"
    return NotFoundError(
        f"There is no {_WORDS[kind]} {text}.",
        hint=f"`stillwatch {plural}` lists them"
        + (", by id (f70) and path; name it by either." if kind == FRAME else "."),
    )


def resolve_cluster(reader: Reader, text: str) -> int:
    """The number of a cluster given by id, unique prefix or name; a name wins."""
    row = reader.one("SELECT id FROM clusters WHERE name = ?", (text,))
    return int(row["id"]) if row is not None else resolve_id(reader, CLUSTER, text)


def resolve_frame(reader: Reader, text: str) -> int:
    """The number of a frame given by id, unique prefix, or path of its file."""
    number = frame_at(reader, Path(text))
    return resolve_id(reader, FRAME, text) if number is None else number


def frame_at(reader: Reader, file: Path) -> int | None:
    """The frame whose file this is now, or None; the file is not touched."""
    wanted = os.fsencode(file.absolute())
    for camera in reader.rows("SELECT id, root FROM cameras"):
        prefix = bytes(camera["root"]).rstrip(b"/") + b"/"
        if not wanted.startswith(prefix):
            continue
        row = reader.one(
            "SELECT id FROM frames WHERE camera_id = ? AND path = ? AND presence = 'here'",
            (camera["id"], wanted[len(prefix) :]),
        )
        if row is not None:
            return int(row["id"])
    return None
