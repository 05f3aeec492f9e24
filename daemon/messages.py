"""What travels between the rooms of the daemon: frozen values, no behaviour.

Arrays are handed over, never copied; whoever receives one must not change it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
"""float32 array."""
ByteArray = NDArray[np.uint8]
"""uint8 array."""

TimeSource = Literal["exif", "name", "counter", "mtime"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatKey:
    """What must stay the same for a file to count as unchanged."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file that may be a frame. `path` is bytes below the camera's root."""

    camera_id: int
    path: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledFile:
    """A candidate that has not changed for `settle_seconds`; `row_id` is its frame."""

    camera_id: int
    path: bytes
    stat: StatKey
    changed_at: float
    """Wall-clock time of the file's last change, for the latency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImage:
    """A decoded picture as the decode child hands it back.

    `pixels`: uint8 RGB, shape (height, width, 3) of the encoder's input. `grey`: PNG of the
    320 px wide grey picture for the change test. `width`, `height`: of the upright picture.
    """

    file: SettledFile
    sha256: bytes
    format: str
    width: int
    height: int
    pixels: ByteArray
    grey: bytes
    exif_time: str | None = None
    """`YYYY-MM-DDTHH:MM:SS[.ffffff][+HH:MM]` as the EXIF block has it."""
    pixel_sha256: bytes | None = None
    """Of the decoded pixels; where fingerprints were asked for."""
    perceptual_hash: bytes | None = None
    """8 bytes; None also for a picture without features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedFile:
    """A file without a usable picture. `final` false: it may become one (it stays pending).

    `unreadable`: it could not be examined at all (EACCES, EIO).
    """

    file: SettledFile
    reason: str
    final: bool
    sha256: bytes | None = None
    unreadable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """A batch of encoded pictures.

    `vectors`: float32, shape (n, dim), unit length. `tiles`: float32, shape
    (n, rows, columns, channels), or None for encoders without a mid-layer.
    """

    space: str
    vectors: FloatArray
    tiles: FloatArray | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Where a new frame belongs. All distances are cosine distances, 0 to 2.

    `cluster_id` None with `novel` False: there is no clustering yet (state `learning`).
    `max_distance` is the limit of the nearest cluster, also for a novel frame.
    """

    cluster_id: int | None
    novel: bool
    distance: float | None = None
    max_distance: float | None = None
    p_value: float | None = None
    nearest_frame_id: int | None = None
    nearest_cluster_id: int | None = None
    novelty: Literal["scene", "place"] | None = None
    alpha: float | None = None
    """Limit of the p-value when the frame was judged."""
    scene_score: float | None = None
    """Distance in units of the usual distance around its nearest representative."""
    place_score: float | None = None
    novel_tile: tuple[float, float, float, float] | None = None
    """The place that is least like anything seen: x, y, width, height, shares of the picture."""
    calibrates: bool = False
    """Whether its scores join the camera's calibration."""
    representative: bool = False
    """Whether later frames are measured against it."""
    scale: float | None = None
    """Usual distance around it, as a representative."""
    nearest_in_batch: int | None = None
    """Position of the nearest frame when it is of the same batch; it has no id yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivingFrame:
    """An encoded frame on its way to a cluster.

    `vector` (dim,) float32 unit length; `tiles` (rows, columns, channels) int8 directions or
    None for encoders without a mid-layer.
    """

    camera_id: int
    vector: FloatArray
    tiles: NDArray[np.int8] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What is known of the frames in the index that new ones are measured against.

    `frame_ids` (n,) int64; `cluster_ids` (n,) int64, -1 for a frame of no cluster; `scales` (n,)
    float64: usual cosine distance around each. `scores`: ascending leave-one-out scores of all
    cameras together, for those that have too few of their own. `usual`: the scale of all
    clusters together. `ignored`: clusters whose frames never alarm.
    """

    space: str
    frame_ids: NDArray[np.int64]
    cluster_ids: NDArray[np.int64]
    scales: NDArray[np.float64]
    scores: FloatArray
    usual: float
    ignored: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraNovelty:
    """What one camera has learnt of its own frames, in one embedding space.

    `alpha`: limit of the p-value now, None before the first frame. `scene_scores`,
    `place_scores` (n,) float64: calibration scores, oldest first. `bank`: the camera's known
    places as bytes, None where nothing was taught.
    """

    alpha: float | None = None
    scene_scores: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    place_scores: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    bank: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clustering:
    """The result of reclustering n frames, in row order of the input.

    `labels` (n,) int64, noise -1; `membership` (n,) float32 probability 0 to 1;
    `outlier_scores` (n,) float32; `weights` (n,) int64: frames a row stands for as a
    representative, 0 for the others; `medoids`: label -> row; `scales`: label -> usual
    leave-one-out distance; `scores`: ascending normalised scores. `representative` (n,) int64:
    the row that stands for each row; `distances` (n,) float32: cosine distance to it; `nearest`
    (n,) float32: leave-one-out distance of a representative inside its cluster, else NaN.
    `representative_scales` (n,) float64: usual distance around a representative, NaN for the
    other rows; `representative_scores` (n,) float32: its leave-one-out score, NaN also for
    noise. `usual`: the scale of all clusters together.
    """

    labels: NDArray[np.int64]
    membership: FloatArray
    outlier_scores: FloatArray
    weights: NDArray[np.int64]
    medoids: Mapping[int, int]
    scales: Mapping[int, float]
    scores: FloatArray
    seconds: float
    representative: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    distances: FloatArray = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    nearest: FloatArray = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    representative_scales: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    representative_scores: FloatArray = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    usual: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityMatch:
    """Which new label continues which permanent cluster id; absent labels are births."""

    kept: Mapping[int, int]
    retired: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedFrame:
    """A frame as the dedup judge sees it, in capture order.

    `grey` uint8 (height, width); `tiles` int8 or float32 (rows, columns, channels) or None.
    `seconds`: capture time, None where only a counter gives the order. `vector`: unit length.
    """

    frame_id: int
    seconds: float | None
    day: str | None
    width: int
    height: int
    grey: ByteArray
    tiles: NDArray[np.int8] | None
    vector: FloatArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeResult:
    """The change test of one frame against one keeper.

    `score`: geometric mean of the two noise-normalised maxima (1 = at the noise level).
    `comparable` False: another size, not alignable, no model; never a duplicate then.
    `tile`: the worst tile as shares of the picture (x, y, width, height).
    """

    score: float
    pixel_score: float
    tile_score: float | None
    comparable: bool
    reason: str
    tile: tuple[float, float, float, float] | None = None
    shift: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the dedup judge decided of one frame: a keeper (`keeper_id` None) or redundant."""

    frame_id: int
    keeper_id: int | None
    score: float | None
    reason: str
    distance: float | None = None
    tile: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraVerdicts:
    """All verdicts of one judging run over one camera."""

    verdicts: Sequence[Verdict]
    moving: bool = False
    ready: bool = True
    """False during warm-up: fewer frames than the noise model needs."""
    checkpoints: Sequence["CheckpointState"] = field(default_factory=tuple)
    state: bytes = b""
    """The judge's state after the last frame (npz), to go on from; empty if it was not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointState:
    """The judge's state just before `frame_id` was judged, as bytes (npz)."""

    frame_id: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FilingEntry:
    """One file operation of a plan. `target` is bytes below the camera's root."""

    frame_id: int
    camera_id: int
    source: bytes
    target: bytes
    sha256: bytes
    size: int
    reason: str
    keeper_id: int | None = None
