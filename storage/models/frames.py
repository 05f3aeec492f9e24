"""The frames: one row for each image file that a camera delivered.

`state` is generated from the facts (storage/states.py), so every row has exactly one.
"""

from typing import Any

from sqlalchemy import CheckConstraint, Computed, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from storage.models.base import Base, FileNumber, FileTime
from storage.states import STATE_SQL


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
