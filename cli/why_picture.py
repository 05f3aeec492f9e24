"""`why FRAME --picture`: what a verdict rests on, drawn from the files themselves.

The change test is run once more on the frame and the one it was compared with; both are read as
on arrival. The tile in the box is the one that was stored with the verdict.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from sqlalchemy import Connection

from cli.change_drawing import Heat, Panel, draw
from cli.context import Context, load_settings_of
from cli.output import printable
from cli.words import place_words
from daemon.dedup.change import NoiseLimits, judge_maps, prepare, residual_maps, score_map
from daemon.dedup.judge_state import noise_in
from daemon.dedup.noise import NoiseModel
from daemon.ingest.frame_pictures import FramePictures
from daemon.jobs.limits import camera_limit
from daemon.jobs.signatures import SignatureSource, signature_parameters
from daemon.jobs.workshop import Workshop
from daemon.messages import JudgedFrame
from daemon.settings import Settings
from storage import cameras
from storage.dedup import LAST, list_checkpoints, load_state
from storage.engine import Database
from storage.errors import FolderError, StillwatchError, UsageError
from storage.listing import frame_row
from storage.names import FRAME
from storage.reading import Reader
from storage.verdicts import verdicts

LARGEST_WIDTH: Final = 1600
"""Pixels at which the pictures are read."""
_COMPARED: Final = re.compile(r"(?:changed since|no visible change from) f(\d+)")
_UNKNOWN_NOISE: Final = (1.0, 0.02)
"""Granted to pixel tiles and to cells where the camera's noise is not known yet."""


@dataclass(frozen=True, slots=True)
class _Test:
    """The change test by the noise known now: the score of every place, and the limit.

    `score`: of the whole; `reason`: why there is none of all this.
    """

    heat: Heat | None
    reason: str
    score: float | None = None


def write_picture(context: Context, number: int, out: Path, *, force: bool) -> dict[str, Any]:
    """Draw why a frame is redundant, kept or novel, and write it as PNG.

    Args:
        context: The invocation.
        number: The frame.
        out: File to write; its folder must be there.
        force: Whether a file of that name is replaced.

    Returns:
        `picture` (its path), `compared_with` (frame id), `change_score`, `limit`.

    Raises:
        UsageError: The file is there already, or there is nothing to compare with.
        StillwatchError: A picture can no longer be read.
        FolderError: The file cannot be written.
    """
    if out.suffix.lower() != ".png":
        raise UsageError(f"{out} is no name of a PNG file.", hint="Let it end in .png.")
    if out.exists() and not force:
        raise UsageError(f"{out} is there already.", hint="Replace it with --force.", path=str(out))
    with Reader(context.state_dir) as reader:
        row = frame_row(reader, number)
        other = frame_row(reader, _compared_with(reader, row))
    settings = load_settings_of(context)
    test = _as_judged(_test(context, settings, row, other), row["change_score"])
    with FramePictures(settings.ingest) as pictures:
        panels = [_panel(pictures, row, _role(row)), _panel(pictures, other, _other_role(row))]
    box = json.loads((row["novel_tile"] if _novel(row) else row["change_tile"]) or "null")
    heat = None if _novel(row) else test.heat
    words = _words(row, box, test)
    sheet = draw(
        _title(row, int(other["id"])),
        printable(f"{row['camera_name']} · {row['reason'] or _far(row)}"),
        panels,
        box=box,
        heat=heat,
        words=words,
    )
    _write(out, cv2.imencode(".png", sheet[:, :, ::-1])[1].tobytes(), force=force)
    limit = None if test.heat is None else round(test.heat.limit, 3)
    return {
        "picture": str(out),
        "compared_with": f"{FRAME}{other['id']}",
        "change_score": row["change_score"],
        "limit": limit,
    }


def _novel(row: Any) -> bool:
    return row["state"] == "novel" and row["duplicate_of"] is None


def _compared_with(reader: Reader, row: Any) -> int:
    """The keeper that the verdict names, or the nearest of the novel, or the kept one before."""
    if row["duplicate_of"] is not None:
        return int(row["duplicate_of"])
    if _novel(row) and row["nearest_frame_id"] not in (None, row["id"]):
        return int(row["nearest_frame_id"])
    named = _COMPARED.search(row["reason"] or "")
    if named is not None and reader.one("SELECT 1 FROM frames WHERE id = ?", (int(named[1]),)):
        return int(named[1])
    planned = reader.one(
        "SELECT keeper_id FROM plan_entries WHERE frame_id = ? AND keeper_id IS NOT NULL"
        " ORDER BY id DESC LIMIT 1",
        (row["id"],),
    )
    if planned is not None:  # a limit that became stricter took the verdict away
        return int(planned["keeper_id"])
    before = None
    for one in verdicts(reader, row["camera_name"]):
        if one["id"] == row["id"]:
            break
        if one["duplicate_of"] is None and one["presence"] == "here":
            before = one
    if before is None:
        raise UsageError(
            f"f{row['id']} was compared with no frame: it is the first of its camera.",
            hint=f"`stillwatch why f{row['id']}` says the reason in words.",
        )
    return int(before["id"])


def _test(context: Context, settings: Settings, row: Any, other: Any) -> _Test:
    db = Database(context.state_dir, read_only=True)
    try:
        workshop = Workshop(state_dir=context.state_dir, db=db, settings=settings)
        with SignatureSource(db, signature_parameters(workshop)) as source:
            found = source.load([int(row["id"]), int(other["id"])])
            missing = [f"f{key}: {why}" for key, why in source.missing.items()]
        if missing:
            return _Test(None, f"not compared: {'; '.join(missing)}")
        frame, keeper = found[int(row["id"])], found[int(other["id"])]
        with db.read() as connection:
            noise = _noise_near(connection, int(row["camera_id"]), int(row["id"]))
            camera = next(c for c in cameras.list_cameras(connection) if c.id == row["camera_id"])
            tiles = frame.tiles is not None
            limit = camera_limit(connection, settings, camera, tile_map=tiles)
    finally:
        db.close()
    return _scored(frame, keeper, None if noise is None else noise.limits(), limit)


def _scored(
    frame: JudgedFrame, keeper: JudgedFrame, noise: NoiseLimits | None, limit: float
) -> _Test:
    maps = residual_maps(prepare(frame), prepare(keeper))
    if not maps.comparable:
        return _Test(None, f"not compared: {maps.reason}")
    if noise is None or noise.pixel.shape != maps.pixel.shape:
        pixel, cell = _UNKNOWN_NOISE
        tile = None if maps.tile is None else np.full_like(maps.tile, cell)
        noise = NoiseLimits(np.full_like(maps.pixel, pixel), tile)
    score = judge_maps(maps, noise).score
    return _Test(Heat(ratio=score_map(maps, noise), limit=limit), "", score)


def _as_judged(test: _Test, stored: float | None) -> _Test:
    """Colours without the limit where the noise learnt since would give another verdict.

    The noise that the judge knew at that moment is kept at checkpoints only; by what it learnt
    since, an early change may look like none.
    """
    if test.heat is None or test.score is None or stored is None or not _turned(test, stored):
        return test
    return replace(test, heat=replace(test.heat, marked=False))


def _turned(test: _Test, stored: float) -> bool:
    """Whether the score as it comes out now lies on the other side of the limit."""
    if test.heat is None or test.score is None:
        return False
    return (test.score <= test.heat.limit) != (stored <= test.heat.limit)


def _noise_near(connection: Connection, camera_id: int, frame_id: int) -> NoiseModel | None:
    """The camera's noise as stored nearest to when a frame was judged: before it, else after it."""
    found = list_checkpoints(connection, camera_id)
    before = [position for position, following in found if following <= frame_id]
    after = [position for position, following in found if following > frame_id]
    for position in (*before[:1], *after[-1:], LAST):
        state = load_state(connection, camera_id, position)
        noise = None if state is None else noise_in(bytes(state.payload))
        if noise is not None:
            return noise
    return None


def _panel(pictures: FramePictures, row: Any, role: str) -> Panel:
    width, height = int(row["width"]), int(row["height"])
    scale = min(1.0, LARGEST_WIDTH / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    file = {key: row[key] for key in ("path", "sha256")} | {"root": row["camera_root"]}
    try:
        picture = pictures.read(file, *size)
    except StillwatchError as exc:
        raise StillwatchError(
            f"f{row['id']} cannot be drawn: {exc.summary}.",
            hint=f"`stillwatch why f{row['id']}` says the reason in words.",
        ) from exc
    when = (row["captured_at"] or "")[:19].replace("T", " ")
    name = bytes(row["path"]).rpartition(b"/")[2].decode("utf-8", "replace")
    return Panel(
        picture=picture, caption=f"f{row['id']}, {role}", note=printable(f"{when}  {name}".strip())
    )


def _title(row: Any, other: int) -> str:
    if row["duplicate_of"] is not None:
        return f"f{row['id']} is called a repeat of f{other}"
    if _novel(row):
        return f"f{row['id']} is novel: nothing that was seen is near enough"
    return f"f{row['id']} is kept"


def _far(row: Any) -> str:
    """How far a frame without a stored reason, that is, one compared by the clustering, lies."""
    if row["distance"] is None:
        return str(row["state"]).replace("_", " ")
    usual = "" if row["limit_now"] is None else f", usual is up to {row['limit_now']:.4f}"
    return f"distance {row['distance']:.4f} from what is most like it{usual}"


def _role(row: Any) -> str:
    if row["duplicate_of"] is not None:
        return "called a repeat"
    return "novel" if _novel(row) else "kept"


def _other_role(row: Any) -> str:
    if row["duplicate_of"] is not None:
        return "its keeper, which stays"
    return "the frame most like it" if _novel(row) else "what it was compared with"


def _words(row: Mapping[str, Any], box: Sequence[float] | None, test: _Test) -> list[str]:
    if _novel(row):
        place = [] if box is None else [f"New is what the box shows: {place_words(box)}."]
        return [*place, f"`stillwatch why f{row['id']}` says how far it is from what is usual."]
    lines = []
    if row["change_score"] is not None and test.heat is not None:
        side = "within" if row["change_score"] <= test.heat.limit else "above"
        lines.append(f"Score {row['change_score']:.2f}, {side} the limit {test.heat.limit:.2f}.")
        if test.score is not None and _turned(test, row["change_score"]):
            lines.append(
                f"By the noise that the camera has learnt since it would be {test.score:.2f},"
            )
            lines.append("so the colours say only where it changed most.")
    if box is not None:
        lines.append(f"It changed most in the box: {place_words(box)}.")
    if test.reason:
        lines.append(test.reason)
    lines.append("1 is as much as this camera's picture changes by itself.")
    return lines


def _write(out: Path, data: bytes, *, force: bool) -> None:
    try:
        if force:  # whatever stands there, a link among it, is replaced and not written into
            out.unlink(missing_ok=True)
        with out.open("xb") as file:
            file.write(data)
    except OSError as exc:
        raise FolderError(f"{out} cannot be written: {exc.strerror}.", path=str(out)) from exc
