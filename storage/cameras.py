"""Repository of cameras: one row a watched folder."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.sqlite import insert

from storage.models import Camera


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraRow:
    """A camera as the daemon needs it. `root` is an absolute path as bytes."""

    id: int
    name: str
    root: bytes
    kind: str
    kind_source: str
    timezone: str | None
    root_device: int | None
    root_filesystem: str | None
    root_inode: int | None
    writable: bool


_COLUMNS = (
    Camera.id,
    Camera.name,
    Camera.root,
    Camera.kind,
    Camera.kind_source,
    Camera.timezone,
    Camera.root_device,
    Camera.root_filesystem,
    Camera.root_inode,
    Camera.writable,
)


def list_cameras(connection: Connection) -> list[CameraRow]:
    """Every known camera, oldest first."""
    rows = connection.execute(select(*_COLUMNS).order_by(Camera.id)).mappings()
    return [CameraRow(**row) for row in rows]


def ensure_camera(
    connection: Connection,
    *,
    root: bytes,
    name: str,
    now: float,
    kind: str | None = None,
    timezone: str | None = None,
) -> int:
    """The id of the camera with this root, created when new.

    The name is made unique with `-2`, `-3`, ... What the owner set (kind, timezone) is updated;
    a guessed kind stays where the owner set none.
    """
    known = connection.execute(select(Camera.id, Camera.name).where(Camera.root == root)).first()
    if known is None:
        taken = set(connection.execute(select(Camera.name)).scalars())
        unique = name
        number = 2
        while unique in taken:
            unique = f"{name}-{number}"
            number += 1
        statement = insert(Camera).values(name=unique, root=root, created_at=now)
        camera_id = int(connection.execute(statement.returning(Camera.id)).scalar_one())
    else:
        camera_id = int(known.id)
    owner: dict[str, object] = {"timezone": timezone}
    if kind is not None:
        owner |= {"kind": kind, "kind_source": "owner"}
    else:
        connection.execute(
            update(Camera)
            .where(Camera.id == camera_id, Camera.kind_source == "owner")
            .values(kind="fixed", kind_source="default")
        )
    connection.execute(update(Camera).where(Camera.id == camera_id).values(**owner))
    return camera_id


def set_state(
    connection: Connection, camera_id: int, state: str, reason: str | None = None
) -> None:
    """Store the condition of a camera as `status` shows it."""
    connection.execute(
        update(Camera).where(Camera.id == camera_id).values(state=state, state_reason=reason)
    )


def set_others_inactive(connection: Connection, active: Sequence[int]) -> None:
    """Cameras that this run does not name are `inactive`; their frames are left alone."""
    connection.execute(
        update(Camera)
        .where(Camera.id.not_in(active))
        .values(state="inactive", state_reason="not named in this run")
    )


def set_writable(connection: Connection, camera_id: int, writable: bool) -> None:
    """Note whether files below the root may be moved; filing leaves a read-only camera alone."""
    connection.execute(update(Camera).where(Camera.id == camera_id).values(writable=writable))


def set_root_identity(
    connection: Connection, camera_id: int, *, device: int, filesystem: str, inode: int
) -> None:
    """Remember what folder this camera's root is (the root guard)."""
    connection.execute(
        update(Camera)
        .where(Camera.id == camera_id)
        .values(root_device=device, root_filesystem=filesystem, root_inode=inode)
    )


def set_scan_result(connection: Connection, camera_id: int, *, at: float, ignored: int) -> None:
    """Store when the folder was last compared with the database and what it ignored."""
    connection.execute(
        update(Camera).where(Camera.id == camera_id).values(last_scan_at=at, ignored=ignored)
    )


def guess_kind(connection: Connection, camera_id: int, kind: str) -> bool:
    """Note a guessed kind unless the owner set one; True when it changed."""
    result = connection.execute(
        update(Camera)
        .where(Camera.id == camera_id, Camera.kind_source != "owner", Camera.kind != kind)
        .values(kind=kind, kind_source="guessed")
    )
    return bool(result.rowcount)
