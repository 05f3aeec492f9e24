"""The tables. All times are seconds since the epoch (UTC, REAL) unless the name says `_ns`.

Paths are BLOBs of the bytes below the camera's root. `frames.state` is generated from the facts
(storage/states.py). The same models serve PostgreSQL; partial indexes and the trigger are given
for both or added by the migration.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Computed,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from storage.states import STATE_SQL

BigId = BigInteger().with_variant(Integer, "sqlite")


def storable_time(nanoseconds: int) -> int:
    """A file time as 64 signed bits hold it: years 1677 to 2262, others become the nearest."""
    return max(-(2**63), min(2**63 - 1, nanoseconds))


class FileTime(TypeDecorator[int]):
    """Nanoseconds since the epoch; a file may claim the year 2400."""

    impl = BigId
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        """See `storable_time`."""
        return None if value is None else storable_time(value)


class FileNumber(TypeDecorator[int]):
    """An inode or device: 64 unsigned bits (network filesystems use them all), kept as signed."""

    impl = BigId
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        """Two's complement."""
        return value - 2**64 if value is not None and value >= 2**63 else value

    def process_result_value(self, value: int | None, dialect: Dialect) -> int | None:
        """The number that stat(2) gave."""
        return value + 2**64 if value is not None and value < 0 else value


class Base(DeclarativeBase):
    """Declarative base; maps Python types to column types."""

    type_annotation_map = {
        bytes: LargeBinary,
        str: Text,
        float: Float,
        bool: Boolean,
        int: BigId,
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }


class Meta(Base):
    """Single values: daemon heartbeat, encoder state, the current generation of the indexes."""

    __tablename__ = "meta"
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class Camera(Base):
    """One watched folder, with the identity of its root (the root guard) and its condition."""

    __tablename__ = "cameras"
    __table_args__ = {"sqlite_autoincrement": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    root: Mapped[bytes] = mapped_column(unique=True)
    kind: Mapped[str] = mapped_column(default="fixed")
    kind_source: Mapped[str] = mapped_column(default="default")  # default, guessed, owner
    timezone: Mapped[str | None]
    state: Mapped[str] = mapped_column(default="learning")
    state_reason: Mapped[str | None]
    root_device: Mapped[int | None] = mapped_column(FileNumber)
    root_filesystem: Mapped[str | None]
    root_inode: Mapped[int | None] = mapped_column(FileNumber)
    writable: Mapped[bool] = mapped_column(default=True)
    ignored: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[float]
    last_arrival_at: Mapped[float | None]
    last_scan_at: Mapped[float | None]


class Space(Base):
    """An embedding space: an encoder with its weights. Vectors of two spaces never meet."""

    __tablename__ = "spaces"
    __table_args__ = {"sqlite_autoincrement": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    encoder: Mapped[str]
    weights_sha256: Mapped[str]
    dim: Mapped[int]
    created_at: Mapped[float]


class Cluster(Base):
    """A permanent cluster; a label number of a clustering run is never stored."""

    __tablename__ = "clusters"
    __table_args__ = {"sqlite_autoincrement": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"))
    name: Mapped[str | None] = mapped_column(unique=True)
    state: Mapped[str] = mapped_column(default="active")  # active, retired
    pinned: Mapped[bool] = mapped_column(default=False, server_default=text("0"))
    """The owner wants its id and name to survive even when it is empty."""
    ignored: Mapped[bool] = mapped_column(default=False, server_default=text("0"))
    """Its frames never alarm."""
    merged_into: Mapped[int | None]
    medoid_frame_id: Mapped[int | None]
    max_distance: Mapped[float | None]
    distance_scale: Mapped[float | None]
    created_at: Mapped[float]
    created_run_id: Mapped[int | None]
    retired_at: Mapped[float | None]


class Frame(Base):
    """One image file delivered by a camera: where it is, what it is, what was decided of it."""

    __tablename__ = "frames"
    id: Mapped[int] = mapped_column(primary_key=True)
    camera_id: Mapped[int] = mapped_column(ForeignKey("cameras.id"))
    path: Mapped[bytes]
    original_path: Mapped[bytes]
    # facts of the file, as last examined
    device: Mapped[int | None] = mapped_column(FileNumber)
    inode: Mapped[int | None] = mapped_column(FileNumber)
    size: Mapped[int | None]
    mtime_ns: Mapped[int | None] = mapped_column(FileTime)
    ctime_ns: Mapped[int | None] = mapped_column(FileTime)
    sha256: Mapped[bytes | None]
    format: Mapped[str | None]
    width: Mapped[int | None]
    height: Mapped[int | None]
    # time and order
    captured_at: Mapped[str | None]  # ISO-8601 with zone
    captured_ns: Mapped[int | None]
    time_source: Mapped[str | None]  # exif, name, counter, mtime
    counter_pattern: Mapped[bytes | None]
    counter: Mapped[int | None]
    arrived_at: Mapped[float]
    recorded_at: Mapped[float | None]
    latency_ms: Mapped[float | None]
    # facts that make the state
    presence: Mapped[str] = mapped_column(default="here")  # here, missing, trashed, pruned
    stage: Mapped[str] = mapped_column(default="pending")  # pending, rejected, embedded
    duplicate_kind: Mapped[str | None]  # exact, near
    duplicate_of: Mapped[int | None]
    alarm: Mapped[bool] = mapped_column(default=False)
    cluster_id: Mapped[int | None] = mapped_column(ForeignKey("clusters.id"))
    former_cluster_id: Mapped[int | None]
    """The retired or merged cluster it was in last: how a cluster that returns is recognised."""
    noise: Mapped[bool] = mapped_column(default=False)
    state: Mapped[str] = mapped_column(Computed(STATE_SQL, persisted=True))
    # reasons and numbers
    reason: Mapped[str | None]
    distance: Mapped[float | None]
    max_distance: Mapped[float | None]
    p_value: Mapped[float | None]
    novelty: Mapped[str | None]  # scene, place
    alpha: Mapped[float | None]
    """Limit of the p-value when the frame was judged."""
    scene_score: Mapped[float | None]
    place_score: Mapped[float | None]
    calibrates: Mapped[bool] = mapped_column(default=False, server_default=text("0"))
    """Whether its scores belong to the camera's calibration."""
    novel_tile: Mapped[list[Any] | None]  # [x, y, width, height] as shares of the picture
    outlier_score: Mapped[float | None]
    membership: Mapped[float | None]
    nearest_frame_id: Mapped[int | None]
    change_score: Mapped[float | None]
    change_tile: Mapped[list[Any] | None]  # [x, y, width, height] as shares of the picture
    judged: Mapped[bool] = mapped_column(default=False)
    """Whether the dedup judge has taken the frame in."""
    sharpness: Mapped[float | None]
    exposure: Mapped[float | None]
    """Share of the grey picture that is neither black nor blown out."""
    run_settled: Mapped[bool] = mapped_column(default=False, server_default=text("0"))
    """Whether the run of this keeper has ended and its keepers were chosen."""
    pixel_sha256: Mapped[bytes | None]  # of the decoded pixels; archives only
    perceptual_hash: Mapped[bytes | None]  # 8 bytes; archives only
    trashed_at: Mapped[float | None]
    trashed_uptime: Mapped[float | None]
    """Seconds that daemons had been up in all when the frame went to the trash."""
    space_id: Mapped[int | None] = mapped_column(ForeignKey("spaces.id"))
    strikes: Mapped[int] = mapped_column(default=0)
    retry_at: Mapped[float | None]

    __table_args__ = (
        Index(
            "frames_path_here",
            "camera_id",
            "path",
            unique=True,
            sqlite_where=text("presence = 'here'"),
            postgresql_where=text("presence = 'here'"),
        ),
        Index("frames_state", "state"),
        Index("frames_camera_state", "camera_id", "state"),
        Index("frames_sha256", "camera_id", "sha256"),
        Index("frames_cluster", "cluster_id"),
        Index("frames_duplicate_of", "duplicate_of"),
        Index("frames_counter", "camera_id", "counter_pattern", "time_source"),
        Index(
            "frames_calibration",
            "camera_id",
            "id",
            sqlite_where=text("calibrates"),
            postgresql_where=text("calibrates"),
        ),
        CheckConstraint(
            "(duplicate_kind IS NULL) = (duplicate_of IS NULL)", name="duplicate_complete"
        ),
        CheckConstraint("duplicate_of IS NULL OR duplicate_of <> id", name="duplicate_not_self"),
        {"sqlite_autoincrement": True},
    )


class Embedding(Base):
    """The unit-length vector of a frame in one space, float16 little-endian."""

    __tablename__ = "embeddings"
    frame_id: Mapped[int] = mapped_column(ForeignKey("frames.id"), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"), primary_key=True)
    vector: Mapped[bytes]
    weight: Mapped[int] = mapped_column(default=0)
    """Frames this one stands for as a representative of its cluster; 0: not a representative."""
    scale: Mapped[float | None]
    """Usual cosine distance around a representative."""

    __table_args__ = (Index("embeddings_space", "space_id", "weight"),)


class Signature(Base):
    """What the change test needs of a frame: small grey picture and a space's tile map."""

    __tablename__ = "signatures"
    frame_id: Mapped[int] = mapped_column(ForeignKey("frames.id"), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"), primary_key=True)
    grey: Mapped[bytes]  # PNG, 8 bit, 320 px wide
    tiles: Mapped[bytes | None]  # int8, shape tile_shape, direction only
    tile_shape: Mapped[list[Any] | None]


class Calibration(Base):
    """Normalised leave-one-out distances of a clustering: what "as far as usual" means."""

    __tablename__ = "calibrations"
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"), primary_key=True)
    scores: Mapped[bytes]  # float32, ascending, distance / distance_scale of the cluster
    quantile: Mapped[float]
    run_id: Mapped[int | None]


class CameraNovelty(Base):
    """A camera's adaptive limit and its bank of known places, in one embedding space."""

    __tablename__ = "camera_novelty"
    camera_id: Mapped[int] = mapped_column(ForeignKey("cameras.id"), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"), primary_key=True)
    alpha: Mapped[float]
    bank: Mapped[bytes | None]  # npz
    payload: Mapped[dict[str, Any] | None]
    updated_at: Mapped[float]


class Checkpoint(Base):
    """A state of a camera's dedup judge: position -1 is the last, 0, 1, ... go back in time."""

    __tablename__ = "dedup_checkpoints"
    camera_id: Mapped[int] = mapped_column(ForeignKey("cameras.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    frame_id: Mapped[int]  # -1: the last frame taken in; else the next one to be taken in
    payload: Mapped[bytes]  # npz
    created_at: Mapped[float]


class Decision(Base):
    """What a human said; kept for ever, undoable, never asked twice."""

    __tablename__ = "decisions"
    __table_args__ = {"sqlite_autoincrement": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]  # rename, accept, dismiss, ...
    actor: Mapped[str]
    at: Mapped[float]
    frame_id: Mapped[int | None]
    cluster_id: Mapped[int | None]
    data: Mapped[dict[str, Any] | None]
    run_id: Mapped[int | None]
    undone_at: Mapped[float | None]


class Event(Base):
    """Something that happened to a camera, a cluster or a frame."""

    __tablename__ = "events"
    __table_args__ = {"sqlite_autoincrement": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float]
    kind: Mapped[str]
    camera_id: Mapped[int | None]
    frame_id: Mapped[int | None]
    cluster_id: Mapped[int | None]
    run_id: Mapped[int | None]
    data: Mapped[dict[str, Any] | None]


class Run(Base):
    """One recluster, dedup plan, filing or decision, with its id for `runs` and `undo`."""

    __tablename__ = "runs"
    __table_args__ = {"sqlite_autoincrement": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]  # recluster, dedup, filing, decision, pool, encoder, trash, prune
    state: Mapped[str] = mapped_column(default="planned")  # planned, applied, partly, undone
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    seconds: Mapped[float | None]
    digest: Mapped[str | None]  # of the plan's entries: an unchanged plan keeps its run
    counts: Mapped[dict[str, Any] | None]
    bytes: Mapped[int] = mapped_column(default=0)
    parameters: Mapped[dict[str, Any] | None]


class PlanEntry(Base):
    """One frame of a plan: what shall happen to it, why, and what did happen."""

    __tablename__ = "plan_entries"
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    frame_id: Mapped[int] = mapped_column(ForeignKey("frames.id"))
    keeper_id: Mapped[int | None]
    action: Mapped[str]  # file
    target: Mapped[bytes | None]  # below the camera's root
    sha256: Mapped[bytes | None]
    size: Mapped[int | None]
    distance: Mapped[float | None]
    change_score: Mapped[float | None]
    reason: Mapped[str]
    state: Mapped[str] = mapped_column(default="planned")  # planned, applied, skipped, undone
    outcome: Mapped[str | None]

    __table_args__ = (
        Index("plan_entries_run", "run_id"),
        Index("plan_entries_frame", "frame_id"),
        {"sqlite_autoincrement": True},
    )


class JournalEntry(Base):
    """One intended file operation, committed before the file is touched."""

    __tablename__ = "journal"
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int | None]
    entry_id: Mapped[int | None]
    frame_id: Mapped[int] = mapped_column(ForeignKey("frames.id"))
    camera_id: Mapped[int] = mapped_column(ForeignKey("cameras.id"))
    operation: Mapped[str]  # move, hardlink, copy, remove_link (its undo)
    source: Mapped[bytes]
    target: Mapped[bytes]
    sha256: Mapped[bytes]
    device: Mapped[int] = mapped_column(FileNumber)
    inode: Mapped[int] = mapped_column(FileNumber)
    size: Mapped[int]
    mtime_ns: Mapped[int] = mapped_column(FileTime)
    mode: Mapped[int]
    state: Mapped[str] = mapped_column(default="intent")  # intent, done, dropped
    at: Mapped[float]
    done_at: Mapped[float | None]
    undoes: Mapped[int | None]  # the journal row that this one takes back
    note: Mapped[str | None]

    __table_args__ = (
        Index("journal_open", "state"),
        Index("journal_run", "run_id"),
        Index("journal_frame", "frame_id"),
        {"sqlite_autoincrement": True},
    )


class Request(Base):
    """What the command line asked the daemon for."""

    __tablename__ = "requests"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    arguments: Mapped[dict[str, Any]]
    actor: Mapped[str]
    state: Mapped[str] = mapped_column(default="queued")  # queued, running, done
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    progress: Mapped[dict[str, Any] | None]  # {"stage", "done", "total"}
    exit_code: Mapped[int | None]
    result: Mapped[dict[str, Any] | None]

    __table_args__ = (Index("requests_state", "state"), {"sqlite_autoincrement": True})
