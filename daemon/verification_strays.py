"""Files below FOLDER/stillwatch/ that no row names: are they frames whose file is not in place?

Somebody who renames a folder there by hand, or goes on with an older database, leaves frames
without a file and files without a frame. Their bytes tell who belongs to whom.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, or_, select

from daemon.verification_files import Tally
from daemon.verification_walk import content_at
from daemon.violations import Violation
from storage.cameras import CameraRow
from storage.errors import FilingError
from storage.models import Frame
from storage.names import FRAME, format_id, printable_path


def strays(
    connection: Connection,
    camera: CameraRow,
    root_fd: int,
    foreign: Sequence[tuple[bytes, int]],
    without_file: Collection[int],
    tally: Tally,
) -> list[Violation]:
    """The foreign files of a camera, each with the frame that it is, or as `unknown`.

    Args:
        connection: Of a read transaction.
        camera: The camera.
        root_fd: Its folder, opened.
        foreign: Paths below our own folder without a row, with their sizes.
        without_file: Frames that count as on disk and are not.
        tally: Contents that are found are counted there.
    """
    found: list[Violation] = []
    lost = _lost(connection, camera.id, without_file) if foreign else {}
    for path, size in foreign:
        shown = f"{camera.name}: {printable_path(path)}"
        frame = _frame_of(root_fd, path, lost.get(size, []))
        if frame is None:
            found.append(Violation(rule="unknown", text=shown))
            continue
        lost[size].remove(frame)
        tally.contents.add(frame.sha256)
        text = (
            f"{shown} is the content of {format_id(FRAME, frame.id)}, whose file is not where it"
            " was recorded; `stillwatch verify --repair --yes` records it here"
        )
        found.append(
            Violation(
                rule="I2",
                text=text,
                kind="strayed",
                number=frame.id,
                camera_id=camera.id,
                path=path,
            )
        )
    return found


def _lost(
    connection: Connection, camera_id: int, without_file: Collection[int]
) -> dict[int, list[Any]]:
    """Frames of a camera whose file is not in place, by size; replaced ones are not waited for."""
    query = select(Frame.id, Frame.path, Frame.size, Frame.sha256).where(
        Frame.camera_id == camera_id,
        Frame.sha256.is_not(None),
        Frame.size.is_not(None),
        or_(
            (Frame.presence == "missing") & Frame.reason.not_like("replaced%"),
            Frame.id.in_(without_file),
        ),
    )
    lost: dict[int, list[Any]] = defaultdict(list)
    for row in connection.execute(query.order_by(Frame.id)):
        lost[row.size].append(row)
    return lost


def _frame_of(root_fd: int, path: bytes, candidates: Sequence[Any]) -> Any:
    """The one of these frames that a file is; among twins the one of the same name."""
    if not candidates:
        return None
    try:
        digest = content_at(root_fd, path)
    except (OSError, FilingError):
        return None
    equal = [row for row in candidates if row.sha256 == digest]
    same_name = [row for row in equal if _name(row.path) == _name(path)]
    return (*same_name, *equal, None)[0]


def _name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]
