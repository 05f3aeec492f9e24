"""What one camera calls novel: its own calibration scores, its adaptive limit, its open event.

The limit of the p-value follows adaptive conformal inference (Gibbs and Candes, 2021): each false
alarm lowers it, each usual frame lifts it again, at most to the promised rate. Alarms that are
far beyond everything usual, and those inside a confirmed event, leave it alone, or a true event
would blind the camera for hours. Constants: docs/adr/0008-novelty.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from daemon.clustering.calibration import (
    FARTHEST,
    is_calibrated,
    limit_score,
    p_value,
    quantile_score,
)
from daemon.clustering.novelty_event import Event, Ruling, View
from daemon.clustering.references import Reference
from daemon.clustering.score_history import ScoreHistory
from daemon.messages import CameraNovelty, FloatArray

SCENE_SCORES: Final = 5_000
PLACE_SCORES: Final = 2_000
STEP: Final = 0.01
"""How far one false alarm lowers the limit (gamma of the method)."""
LOWEST_ALPHA: Final = 0.0005
TAIL_RATE: Final = 0.01
"""Share of the usual frames that are the tail, at most: the measure of what is far."""
FAR: Final = 1.75
"""Times the score at which the tail begins: novel however low the limit is."""
SIDES: Final = 2
"""Scene and place share one promise: the smaller p-value counts twice (Bonferroni)."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What was measured of a frame.

    `distance`: to the nearest reference; `scale`: the usual one around that. `burst`: it is
    another frame of a known view. `place_score`: None while the camera's bank is young.
    `like_event`: it resembles the open event more than anything known. `spared`: the frames of
    its cluster never alarm.
    """

    distance: float
    scale: float
    burst: bool = False
    place_score: float | None = None
    like_event: bool = False
    spared: bool = False


@dataclass(frozen=True, slots=True)
class _Side:
    """One side of the question: limits in the units of the scores.

    `p_value`: as often as there are sides, None while it is not calibrated. `alarm`: from here on
    that is below alpha; `tail`: here the tail begins; `usual`: here p falls below the promised
    rate.
    """

    p_value: float | None
    alarm: float
    tail: float
    usual: float

    @property
    def far(self) -> float:
        """From here on it is novel however low alpha is."""
        return FAR * self.tail

    def limit(self, *, confirmed: bool, spared: bool) -> float:
        """From here on it is novel."""
        if spared:
            return self.far
        return min(self.alarm, self.tail) if confirmed else min(self.alarm, self.far)


class CameraJudge:
    """Judges the frames of one camera in their order, and learns from them."""

    def __init__(self, known: CameraNovelty, rate: float, pooled: FloatArray) -> None:
        """Go on from what is known of the camera.

        Args:
            known: Its alpha and its calibration scores.
            rate: Promised false-novel rate.
            pooled: Ascending scores of all cameras, for the time until it has its own.
        """
        self._rate, self._pooled = rate, pooled
        self.scene = ScoreHistory(known.scene_scores, SCENE_SCORES)
        self.place = ScoreHistory(known.place_scores, PLACE_SCORES)
        self.alpha = rate if known.alpha is None else self._bounded(known.alpha)
        self.event: Event | None = None
        self._frame = 0

    def next_frame(self) -> list[Reference]:
        """A frame arrives; returns the views of an event that is over: they are known now."""
        self._frame += 1
        if self.event is None or not self.event.is_over(self._frame):
            return []
        return self._close()

    def event_reach(self, scale: float) -> float:
        """Cosine distance within which a frame resembles a view of the open event."""
        rate = min(self._rate, TAIL_RATE)
        if not is_calibrated(self.scene.ascending, rate):
            return 0.0
        return scale * quantile_score(self.scene.ascending, rate)

    def rule(self, sight: Sight) -> Ruling:
        """Judge a frame; changes nothing."""
        place = self._place_side(sight)
        scene = self._scene_side(sight, 1 if place is None else SIDES)
        confirmed = self.event is not None and self.event.confirmed
        limit = scene.limit(confirmed=confirmed and sight.like_event, spared=sight.spared)
        max_distance = min(FARTHEST, sight.scale * limit)
        if sight.burst:
            max_distance = max(max_distance, sight.distance)
        new_scene = sight.distance > max_distance
        far = new_scene and sight.distance > sight.scale * scene.far
        new_place = False
        if place is not None and sight.place_score is not None and not sight.spared:
            # no rule of far places: a camera's own frames reach twice the largest score so far
            limit = min(place.alarm, place.tail) if confirmed else place.alarm
            new_place = sight.place_score > limit
        novelty: Literal["scene", "place"] | None = None
        if new_scene or new_place:
            novelty = "scene" if new_scene else "place"
        p = _combined(scene, place, new_scene)
        in_event = confirmed and (sight.like_event or new_place)
        # beyond alpha, but below the promised rate: the rules of far frames and of events
        beyond = novelty is not None and p is not None and p >= self.alpha
        return Ruling(
            novelty=novelty,
            usual_score=scene.usual,
            far=far,
            lasting=novelty is not None and (far or in_event),
            p_value=p,
            alpha=self._rate if beyond else self.alpha,
            max_distance=max_distance,
        )

    def learn(self, sight: Sight, ruling: Ruling) -> None:
        """Move alpha and take up the scores, as a frame's verdict wants it."""
        if ruling.lasting:
            return
        judged = sight.place_score is not None and self._place_calibrated
        judged = judged or (not sight.burst and self._scene_calibrated)
        if judged:
            alarm = ruling.novelty is not None
            self.alpha = self._bounded(self.alpha + STEP * (self._rate - alarm))
        if not sight.burst:
            self.scene.add(sight.distance / sight.scale)
        if sight.place_score is not None:
            self.place.add(sight.place_score)

    def join_event(self, view: View | None, ruling: Ruling, *, like_event: bool) -> list[Reference]:
        """A novel frame belongs to the open event, or opens one.

        Args:
            view: Its scene, where that is new and no burst of an earlier view.
            ruling: The verdict on it.
            like_event: Whether it resembles the open event; another scene is another event.

        Returns:
            The views of the event that this one ends: they are known now.
        """
        ended: list[Reference] = []
        if self.event is not None and self.event.views and view is not None and not like_event:
            ended = self._close()
        if self.event is None:
            self.event = Event()
        self.event.last = self._frame
        self.event.far_frames += ruling.far
        if view is not None:
            self.event.views.append(view)
        return ended

    def forget(self, dropped: Sequence[Reference]) -> None:
        """Views that were not recorded after all are no part of the event."""
        if self.event is not None and dropped:
            gone = {id(reference) for reference in dropped}
            self.event.views = [v for v in self.event.views if id(v.reference) not in gone]

    def _close(self) -> list[Reference]:
        views = [] if self.event is None else self.event.views
        self.event = None
        return [view.reference for view in views]

    def _bounded(self, alpha: float) -> float:
        return max(min(LOWEST_ALPHA, self._rate), min(self._rate, alpha))

    @property
    def _scene_calibrated(self) -> bool:
        return is_calibrated(self.scene.ascending, min(self._rate, TAIL_RATE))

    @property
    def _place_calibrated(self) -> bool:
        return is_calibrated(self.place.ascending, min(self._rate, TAIL_RATE) / SIDES)

    def _scene_side(self, sight: Sight, sides: int) -> _Side:
        scores = self.scene.ascending
        if not is_calibrated(scores, min(self._rate, TAIL_RATE) / sides):
            pooled = limit_score(self._pooled, self._rate)
            return _Side(p_value=None, alarm=pooled, tail=pooled, usual=pooled)
        p = 1.0 if sight.burst else p_value(scores, sight.scale, sight.distance)
        return self._side(scores, p, sides)

    def _place_side(self, sight: Sight) -> _Side | None:
        if sight.place_score is None or not self._place_calibrated:
            return None
        scores = self.place.ascending
        return self._side(scores, p_value(scores, 1.0, sight.place_score), SIDES)

    def _side(self, scores: Sequence[float], p: float, sides: int) -> _Side:
        return _Side(
            p_value=sides * p,
            alarm=quantile_score(scores, self.alpha / sides),
            tail=quantile_score(scores, min(self._rate, TAIL_RATE) / sides),
            usual=quantile_score(scores, self._rate),
        )


def _combined(scene: _Side, place: _Side | None, new_scene: bool) -> float | None:
    """The p-value of a frame; None where the side that decided has none."""
    if scene.p_value is None and new_scene:
        return None
    known = [side.p_value for side in (scene, place) if side and side.p_value is not None]
    return min(1.0, *known) if known else None
