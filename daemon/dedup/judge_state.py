"""The state of a camera's judge: what a restart must know to go on exactly as before."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from daemon.dedup.alignment import ALIGNED
from daemon.dedup.change import Prepared, prepare
from daemon.dedup.noise import WARM_UP, NoiseModel
from daemon.dedup.order import Cadence
from daemon.messages import FloatArray, JudgedFrame

_ABSENT: dict[str, NDArray[np.generic]] = {
    "light": np.zeros(1),
    "kept": np.zeros(0, dtype=np.int64),
    "kept_in_a_row": np.zeros(1, dtype=np.int64),
    "turned": np.zeros(0, dtype=np.int64),
    "matches": np.zeros(0, dtype=np.int64),
    "turns": np.zeros(0, dtype=np.int64),
}
"""What the states of release 0.1 do not hold yet."""
_LIGHT_RATE = 0.002  # as slow as the noise model sinks (noise.DOWN)
_WATCH_RATE = 0.02  # slow: about 70 frames, so that a run of traffic is not a moving camera


class Phase(IntEnum):
    """What the judge is doing: collecting the warm-up, judging, or only watching."""

    LEARNING = 0
    JUDGING = 1
    MOVING = 2


@dataclass(frozen=True, slots=True, eq=False)
class Keeper:
    """A kept frame that later ones are compared with.

    `matched`: capture time in seconds of its last match (at first its own); `day`: its own day;
    `matches`: frames removed against it; `turn`: of its last match (at first its own).
    """

    frame_id: int
    prepared: Prepared
    vector: FloatArray | None
    matched: float | None
    day: str | None
    matches: int = 0
    turn: int = 0

    @classmethod
    def of(cls, frame: JudgedFrame, prepared: Prepared, turn: int) -> Self:
        """Make a keeper of a frame that is kept."""
        return cls(frame.frame_id, prepared, frame.vector, frame.seconds, frame.day, turn=turn)

    def matched_at(self, frame: JudgedFrame, turn: int) -> "Keeper":
        """The same keeper after `frame` was found to be its near-duplicate."""
        return replace(self, matched=frame.seconds, matches=self.matches + 1, turn=turn)

    def serves(self, frame: JudgedFrame, gate: float) -> bool:
        """Whether `frame` lies within `gate` seconds of the last match and on the same day."""
        if self.day != frame.day:
            return False
        if self.matched is None or frame.seconds is None:
            return self.matched is None and frame.seconds is None
        return frame.seconds - self.matched <= gate


@dataclass(slots=True)
class JudgeState:
    """Everything the judge knows; changed in place.

    `displaced`: share of recent frames that showed another view. `hour`: of the last frame, for
    checkpoints. `judged`: frames taken in so far. `keepers`: most recently matched first. `light`:
    mean grey level that the noise was learnt under. `kept`: the newest frames that were kept in a
    row, at most a warm-up. `kept_in_a_row`: how many were, at most until the noise is learnt anew.
    `turned`: ids of the newest keepers, in a row, that show another view than those before.
    """

    phase: Phase = Phase.LEARNING
    size: tuple[int, int] | None = None
    size_changed: bool = False
    waiting: list[JudgedFrame] = field(default_factory=list)
    keepers: list[Keeper] = field(default_factory=list)
    noise: NoiseModel | None = None
    cadence: Cadence = field(default_factory=Cadence)
    displaced: float = 0.0
    hour: int | None = None
    judged: int = 0
    light: float = 0.0
    kept: list[JudgedFrame] = field(default_factory=list)
    kept_in_a_row: int = 0
    turned: list[int] = field(default_factory=list)
    turn: int = 0

    def watch(self, displaced: float | None) -> None:
        """Take in the displaced share of one frame; None says nothing."""
        if displaced is not None:
            self.displaced += _WATCH_RATE * (float(displaced > ALIGNED) - self.displaced)

    def note_kept(self, frame: JudgedFrame) -> None:
        """Take in a kept frame for a noise model that may have to be learnt anew."""
        self.kept = [*self.kept, frame][-WARM_UP:]
        self.kept_in_a_row += 1

    def note_removed(self, frame: JudgedFrame) -> None:
        """Take in a removed frame: the noise model holds, and follows the light slowly."""
        self.kept = []
        self.kept_in_a_row = 0
        self.light += _LIGHT_RATE * (float(frame.grey.mean()) - self.light)

    def add_keeper(self, keeper: Keeper, most: int) -> None:
        """Put a keeper first; of more than `most`, the one that matched least recently goes.

        Half of the places are for those that matched most often: the empty scene is still known
        after a street full of cars.
        """
        self.keepers.insert(0, keeper)
        if len(self.keepers) > most:
            often = sorted(self.keepers[1:], key=lambda one: -one.matches)[: most // 2]
            held = {one.frame_id for one in often if one.matches > 0} | {keeper.frame_id}
            self.keepers.remove(
                next(one for one in reversed(self.keepers) if one.frame_id not in held)
            )

    def start_learning(self) -> None:
        """Begin a new warm-up: another size or view, or a camera that came to rest."""
        self.phase = Phase.LEARNING
        self.waiting = []
        self.keepers = []
        self.noise = None
        self.kept = []
        self.kept_in_a_row = 0
        self.turned = []

    def to_bytes(self) -> bytes:
        """The state as npz bytes: the same state gives the same bytes. Frames by id only."""
        arrays: dict[str, Any] = {
            "numbers": np.array([self.phase, self.judged, self.size_changed], dtype=np.int64),
            "size": np.array(self.size or (), dtype=np.int64),
            "hour": np.array([] if self.hour is None else [self.hour], dtype=np.int64),
            "displaced": np.array([self.displaced]),
            "light": np.array([self.light]),
            "kept": np.array([frame.frame_id for frame in self.kept], dtype=np.int64),
            "kept_in_a_row": np.array([self.kept_in_a_row], dtype=np.int64),
            "turned": np.array(self.turned, dtype=np.int64),
            "turns": np.array([self.turn, *(k.turn for k in self.keepers)], dtype=np.int64),
            "matches": np.array([keeper.matches for keeper in self.keepers], dtype=np.int64),
            "waiting": np.array([frame.frame_id for frame in self.waiting], dtype=np.int64),
            "keepers": np.array([keeper.frame_id for keeper in self.keepers], dtype=np.int64),
            "matched": np.array(
                [np.nan if keeper.matched is None else keeper.matched for keeper in self.keepers]
            ),
            **self.cadence.arrays(),
            **({} if self.noise is None else self.noise.arrays()),
        }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, payload: bytes, known: Mapping[int, JudgedFrame]) -> Self:
        """Read `to_bytes` back; frames that `known` lacks are left out."""
        with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
            arrays = _ABSENT | dict(stored)
        if not arrays["matches"].size:
            arrays["matches"] = np.zeros(arrays["keepers"].size, dtype=np.int64)
        if not arrays["turns"].size:
            arrays["turns"] = np.zeros(1 + arrays["keepers"].size, dtype=np.int64)
        phase, judged, size_changed = (int(number) for number in arrays["numbers"])
        size = tuple(int(side) for side in arrays["size"])
        keepers = [
            replace(
                Keeper.of(known[frame_id], prepare(known[frame_id]), turn),
                matched=None if np.isnan(matched) else float(matched),
                matches=int(matches),
            )
            for frame_id, matched, matches, turn in zip(
                arrays["keepers"].tolist(),
                arrays["matched"].tolist(),
                arrays["matches"].tolist(),
                arrays["turns"].tolist()[1:],
                strict=True,
            )
            if frame_id in known
        ]
        return cls(
            phase=Phase(phase),
            size=(size[0], size[1]) if len(size) == 2 else None,
            size_changed=bool(size_changed),
            waiting=[known[i] for i in arrays["waiting"].tolist() if i in known],
            keepers=keepers,
            noise=NoiseModel.from_arrays(arrays) if "pixel_level" in arrays else None,
            cadence=Cadence.from_arrays(arrays["intervals"].tolist(), arrays["times"].tolist()),
            displaced=float(arrays["displaced"][0]),
            light=float(arrays["light"][0]),
            kept=[known[i] for i in arrays["kept"].tolist() if i in known],
            kept_in_a_row=int(arrays["kept_in_a_row"][0]),
            turned=arrays["turned"].tolist(),
            turn=int(arrays["turns"][0]),
            hour=int(arrays["hour"][0]) if arrays["hour"].size else None,
            judged=judged,
        )


def frames_needed(payload: bytes) -> tuple[int, ...]:
    """Ids of the frames whose signatures `judge_camera` needs to resume from `payload`."""
    with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
        arrays = _ABSENT | dict(stored)
    named = [arrays[key].tolist() for key in ("waiting", "keepers", "kept")]
    return tuple(dict.fromkeys(frame_id for ids in named for frame_id in ids))


def noise_in(payload: bytes) -> NoiseModel | None:
    """The noise model of a stored state; None while it is being learnt, or the camera moves."""
    with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
        return NoiseModel.from_arrays(dict(stored)) if "pixel_level" in stored else None
