"""`clusters export`: the clusters as a table, a contact sheet each, and a plot of their sizes.

Pictures are read, never changed, and decoded in the same limited process as on arrival.
"""

import csv
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from cli.context import Context
from cli.drawing import COLUMNS, ROWS, Picture, Tile, contact_sheet, fit_cell, size_plot
from cli.output import ProgressReport, printable
from daemon.ingest.frame_pictures import FramePictures
from daemon.settings import IngestSettings, default_path, load_settings
from storage.errors import FolderError, StillwatchError, UsageError
from storage.listing import clusters
from storage.names import CLUSTER, FRAME, display_path, format_id
from storage.reading import Reader
from storage.resolving import resolve_cluster

TABLE_NAME: Final = "clusters.csv"
PLOT_NAME: Final = "counts.png"
TABLE_COLUMNS: Final = (
    *("cluster", "name", "frame", "path", "camera", "captured_at"),
    *("distance", "membership", "outlier_score", "medoid"),
)
_MEMBERS_SQL: Final = (
    "SELECT frame.*, camera.name AS camera_name, camera.root AS root FROM frames AS frame"
    " JOIN cameras AS camera ON camera.id = frame.camera_id WHERE frame.cluster_id = ?"
    " ORDER BY COALESCE(frame.captured_ns / 1e9, frame.arrived_at), frame.id"
)


def export(
    context: Context, folder: Path, cluster: str | None, *, force: bool, report: ProgressReport
) -> dict[str, Any]:
    """Write `clusters.csv`, one `cN.jpg` a cluster and `counts.png` into a folder.

    Args:
        context: The invocation.
        folder: Absent or empty; outside every camera's folder.
        cluster: Id or name of the only one to export; None: all active ones.
        force: Write into a folder that is not empty; files of these names are replaced.
        report: Told stage, done, total.

    Returns:
        `folder`, `clusters`, `frames`, `sheets`, and `skipped`: (frame id, reason) of pictures
        that a sheet lacks.

    Raises:
        UsageError: The folder is not empty, or belongs to a camera.
        FolderError: It cannot be written.
    """
    settings = load_settings(
        context.config or default_path(context.state_dir), required=context.config is not None
    )
    with Reader(context.state_dir) as reader:
        wanted = None if cluster is None else format_id(CLUSTER, resolve_cluster(reader, cluster))
        chosen = [row for row in clusters(reader) if wanted is None or row["id"] == wanted]
        if wanted is not None and not chosen:
            raise UsageError(f"{wanted} has ended.", hint="`stillwatch clusters` lists the others.")
        _check_folder(reader, folder, force=force)
        write = _writer(folder, force=force)
        frames = _write_table(reader, chosen, write)
        names = [(_title(row), int(row["size"])) for row in chosen]
        write(PLOT_NAME, _encoded(size_plot("Frames of each cluster", names), ".png"))
        sheets, skipped = _write_sheets(reader, chosen, settings.ingest, write, report)
    done = {"folder": str(folder), "clusters": len(chosen), "frames": frames, "sheets": sheets}
    return done | {"skipped": skipped}


def _check_folder(reader: Reader, folder: Path, *, force: bool) -> None:
    real = Path(os.path.realpath(folder))
    for row in reader.rows("SELECT name, root FROM cameras"):
        root = Path(os.path.realpath(os.fsdecode(bytes(row["root"]))))
        if real.is_relative_to(root):
            raise UsageError(
                f"{folder} belongs to the camera {printable(row['name'])}.",
                hint="What is written there would be taken for its pictures; name another folder.",
                path=str(folder),
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        filled = any(folder.iterdir())
    except OSError as exc:
        raise _cannot_write(folder, exc) from exc
    if filled and not force:
        raise UsageError(
            f"{folder} is not empty.",
            hint="Name an absent or empty folder, or replace an earlier export with --force.",
            path=str(folder),
        )


def _cannot_write(path: Path, exc: OSError) -> FolderError:
    return FolderError(f"{path} cannot be written: {exc.strerror}.", path=str(path))


def _writer(folder: Path, *, force: bool) -> Callable[[str, bytes], None]:
    """Writes a whole file; without `force` only one that is not there yet."""

    def write(name: str, data: bytes) -> None:
        path = folder / name
        try:
            if force:  # whatever stands there, a link among it, is replaced and not written into
                path.unlink(missing_ok=True)
            with path.open("xb") as file:
                file.write(data)
        except OSError as exc:
            raise _cannot_write(path, exc) from exc

    return write


def _write_table(
    reader: Reader, chosen: list[dict[str, Any]], write: Callable[[str, bytes], None]
) -> int:
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(TABLE_COLUMNS)
    count = 0
    for row in chosen:
        for frame in _members(reader, row):
            table.writerow(_table_row(row, frame))
            count += 1
    # the text of an odd file name may hold a lone surrogate no encoding takes
    write(TABLE_NAME, text.getvalue().encode("utf-8", "backslashreplace"))
    return count


def _members(reader: Reader, cluster: dict[str, Any]) -> Iterator[Any]:
    return reader.rows(_MEMBERS_SQL, (int(cluster["id"].removeprefix(CLUSTER)),))


def _table_row(cluster: dict[str, Any], frame: Any) -> list[object]:
    own = format_id(FRAME, frame["id"])
    return [
        cluster["id"],
        cluster["name"],
        own,
        display_path(frame["path"]),
        frame["camera_name"],
        frame["captured_at"],
        frame["distance"],
        frame["membership"],
        frame["outlier_score"],
        "yes" if own == cluster["medoid"] else "no",
    ]


def _title(cluster: dict[str, Any]) -> str:
    name = cluster["name"]
    return str(cluster["id"]) if name is None else f"{cluster['id']} · {printable(name)}"


def _write_sheets(
    reader: Reader,
    chosen: list[dict[str, Any]],
    settings: IngestSettings,
    write: Callable[[str, bytes], None],
    report: ProgressReport,
) -> tuple[int, list[tuple[str, str]]]:
    sheets = 0
    skipped: list[tuple[str, str]] = []
    with FramePictures(settings) as pictures:
        for done, row in enumerate(chosen):
            report("drawing contact sheets", done, len(chosen))
            tiles = []
            for frame in _chosen_members(reader, row):
                try:
                    size = fit_cell(frame["width"] or 1, frame["height"] or 1)
                    picture = pictures.read(frame, *size)
                except StillwatchError as exc:
                    skipped.append((f"{FRAME}{frame['id']}", exc.summary))
                    continue
                tiles.append(_tile(row, frame, picture))
            if tiles:
                seen = f"{(row['first_seen'] or '')[:16]} to {(row['last_seen'] or '')[:16]}"
                about = f"{row['size']:,} frames, {seen.replace('T', ' ')}"
                sheet = contact_sheet(_title(row), about, tiles)
                write(f"{row['id']}.jpg", _encoded(sheet, ".jpg"))
                sheets += 1
    return sheets, skipped


def _chosen_members(reader: Reader, cluster: dict[str, Any]) -> list[Any]:
    """The medoid, then members evenly spread over time, as far as their files are on disk."""
    rows = [row for row in _members(reader, cluster) if row["presence"] == "here"]
    medoid = [row for row in rows if format_id(FRAME, row["id"]) == cluster["medoid"]]
    others = [row for row in rows if row["duplicate_kind"] is None and row not in medoid]
    room = COLUMNS * ROWS - len(medoid)
    picked = np.unique(np.linspace(0, len(others) - 1, min(room, len(others))).astype(int))
    return medoid + [others[i] for i in picked]


def _tile(cluster: dict[str, Any], frame: Any, picture: Picture) -> Tile:
    own = f"{FRAME}{frame['id']}"
    face = own == cluster["medoid"]
    when = (frame["captured_at"] or "")[:19].replace("T", " ")
    # representatives stand for themselves, at no distance
    far = f" · {frame['distance']:.3f}" if frame["distance"] else ""
    return Tile(
        picture=picture,
        caption=f"{own}{' · medoid' if face else ''}{far}",
        note=f"{when} {printable(frame['camera_name'])}".strip(),
        accent=face,
    )


def _encoded(picture: Picture, extension: str) -> bytes:
    return cv2.imencode(extension, picture[:, :, ::-1])[1].tobytes()
