"""The judge of one camera: is a frame kept, or does a kept one show all that it shows?

A frame is removed only against one keeper that stays kept, so there are no chains. The judge holds
at most the 20 frames of the warm-up and the 6 live keepers. When unsure (warm-up, gap, another
size, no alignment) a frame is kept: an error then costs disk, not evidence.
"""

from itertools import pairwise
from math import isfinite

from daemon.dedup.alignment import ALIGNED
from daemon.dedup.change import Prepared, prepare, residual_maps
from daemon.dedup.comparing import Comparison, JudgeSettings, compare
from daemon.dedup.judge_state import JudgeState, Keeper, Phase
from daemon.dedup.noise import WARM_UP, NoiseModel
from daemon.dedup.reasons import (
    TURNED_AWAY,
    TURNED_WHILE_LEARNING,
    VIEW_CHANGED,
    changed,
    distance_between,
    duration,
    returned,
    unchanged,
)
from daemon.dedup.regime import (
    AWAY,
    STUCK,
    TURNED,
    another_view,
    follow_view,
    learn_anew,
    limits_under,
    mean_light,
)
from daemon.messages import JudgedFrame, Verdict

_CHECKPOINT_SECONDS = 3600.0
_CHECKPOINT_FRAMES = 200
_MOVING_FROM = 0.75
_MOVING_UNTIL = 0.4
"""A camera counts as moving while three of four recent frames show another view than the keeper
before them, until fewer than 40 % do."""


class Judge:
    """Judges the frames of one camera, handed in by `add` in capture order.

    Deterministic: the same frames give the same verdicts, in one call or many, from the start or
    resumed from `state()`.
    """

    def __init__(self, settings: JudgeSettings, state: JudgeState | None = None) -> None:
        self._settings = settings
        self._state = state or JudgeState()

    @property
    def moving(self) -> bool:
        """Whether the camera moves at present; everything is kept then."""
        return self._state.phase is Phase.MOVING

    @property
    def ready(self) -> bool:
        """Whether a noise model exists, that is, whether verdicts are final as they come."""
        return self._state.phase is not Phase.LEARNING

    def state(self) -> bytes:
        """The whole state as npz bytes; keepers and waiting frames by their ids."""
        return self._state.to_bytes()

    def checkpoint_due(self, frame: JudgedFrame) -> bool:
        """Whether the state should be stored before `frame` is added: each hour of capture time.

        Every 200 frames where only a counter gives the order. Asking marks it as done.
        """
        state = self._state
        if frame.seconds is None:
            due = state.judged > 0 and state.judged % _CHECKPOINT_FRAMES == 0
        else:
            hour = int(frame.seconds // _CHECKPOINT_SECONDS)
            due = state.hour is not None and hour != state.hour
            state.hour = hour
        return due

    def add(self, frame: JudgedFrame) -> list[Verdict]:
        """Judge one frame; during warm-up the verdicts come with the twentieth.

        Returns:
            The verdicts that became final, in capture order; empty while the model is learning.
        """
        state = self._state
        state.judged += 1
        verdicts: list[Verdict] = []
        if state.size is not None and state.size != _size_of(frame):
            verdicts = self._flush("the picture size changed before the noise model was ready")
            state.start_learning()
            state.size_changed = True
        state.size = _size_of(frame)
        if state.phase is Phase.LEARNING:
            state.waiting.append(frame)
            return verdicts + (self._end_warm_up() if len(state.waiting) == WARM_UP else [])
        return [*verdicts, self._judge(frame, prepare(frame))]

    def waiting(self) -> list[Verdict]:
        """Provisional verdicts of the frames that still wait for the noise model: all kept.

        They come again, final, from a later `add`.
        """
        reason = "noise model still learning"
        return [_kept(frame, reason) for frame in self._state.waiting]

    def _flush(self, reason: str, count: int = WARM_UP) -> list[Verdict]:
        """Keep the first `count` waiting frames for good."""
        waiting = self._state.waiting
        self._state.waiting = waiting[count:]
        return [_kept(frame, reason) for frame in waiting[:count]]

    def _end_warm_up(self) -> list[Verdict]:
        """Build the noise model from the waiting frames, then judge them by it."""
        state = self._state
        frames = [(frame, prepare(frame)) for frame in state.waiting]
        pairs = [residual_maps(later, earlier) for (_, earlier), (_, later) in pairwise(frames)]
        displaced = [pair.displaced > ALIGNED for pair in pairs if pair.displaced is not None]
        state.displaced = sum(displaced) / len(displaced) if displaced else 0.0
        state.noise = NoiseModel.from_pairs(pairs)
        if state.displaced > _MOVING_FROM:
            return self._start_moving()
        turned = [place for place, pair in enumerate(pairs, start=1) if another_view(pair)]
        if turned and another_view(residual_maps(frames[-1][1], frames[0][1])):
            return self._flush(TURNED_WHILE_LEARNING, turned[-1])
        if state.noise is None:
            return self._flush("too few frames could be compared to learn the noise")
        state.phase = Phase.JUDGING
        state.light = mean_light(state.waiting)
        state.cadence.seed([frame.seconds for frame in state.waiting])
        state.waiting.clear()
        return [self._judge(frame, prepared) for frame, prepared in frames]

    def _start_moving(self) -> list[Verdict]:
        state = self._state
        verdicts = self._flush("the camera moves")
        state.phase = Phase.MOVING
        state.noise = None
        state.keepers = state.keepers[:1]
        return verdicts

    def _judge(self, frame: JudgedFrame, prepared: Prepared) -> Verdict:
        state = self._state
        state.turn += 1
        gap = state.cadence.gap_before(frame.seconds)
        state.cadence.add(frame.seconds)
        if state.phase is Phase.MOVING:
            return self._judge_moving(frame, prepared)
        compared = self._compare(frame, prepared)
        if compared:
            # where one keeper still fits, the camera stands and something passes by
            shares = [one.maps.displaced for one in compared if one.maps.displaced is not None]
            state.watch(min(shares, default=None))
        if gap is not None:
            return self._keep(frame, prepared, f"first after a gap of {duration(gap)}")
        if compared and self._settings.finds_quiet(compared[-1].result) and not state.turned:
            return self._found_quiet(frame, prepared, compared[-1])
        best = min(compared, key=lambda one: one.result.score, default=None)
        reason = self._reason_kept(frame, best)
        if best is not None and state.noise is not None and not state.turned:
            threshold = self._settings.threshold(best.result)
            state.noise.learn(best.maps, threshold, quiet=False)
        verdict = self._keep(frame, prepared, reason, best)
        self._doubt()
        return verdict

    def _doubt(self) -> None:
        """After a kept frame: does the camera move, was it turned, does its noise still hold?"""
        state = self._state
        if state.displaced > _MOVING_FROM:
            self._start_moving()
        elif self._turned_for_good():
            state.start_learning()
        elif state.kept_in_a_row >= STUCK:
            state.kept_in_a_row = 0
            model = learn_anew(state.kept, self._settings.finds_quiet)
            if model is not None:
                state.noise, state.light = model, mean_light(state.kept)

    def _turned_for_good(self) -> bool:
        """Asked while a keeper from before is still held, however few are."""
        enough = min(TURNED, max(1, self._settings.keepers_compared - 1))
        return len(self._state.turned) >= enough

    def _compare(self, frame: JudgedFrame, prepared: Prepared) -> list[Comparison]:
        """Compare with the keepers that serve; note the view that the frame shows.

        After a frame of another view the keepers from before come first: whether the camera was
        turned for good is known by none of them fitting.
        """
        state = self._state
        limits = None
        if state.noise is not None:
            limits = limits_under(state.light, state.noise, frame)
        gate = state.cadence.gate(self._settings.max_gap_seconds)
        state.keepers = [keeper for keeper in state.keepers if keeper.serves(frame, gate)]
        compared = compare(prepared, state.keepers, limits, self._settings, last=state.turned)
        before, since = (
            [one.maps for one in compared if (one.keeper.frame_id in state.turned) is new]
            for new in (False, True)
        )
        state.turned = follow_view(state.turned, frame.frame_id, before, since)
        return compared

    def _judge_moving(self, frame: JudgedFrame, prepared: Prepared) -> Verdict:
        """Keep the frame; go back to learning once the view has stood still for a while."""
        state = self._state
        if state.keepers:
            state.watch(residual_maps(prepared, state.keepers[0].prepared).displaced)
        state.keepers = []
        verdict = self._keep(frame, prepared, "the camera moves")
        if state.displaced < _MOVING_UNTIL:
            state.start_learning()
        return verdict

    def _found_quiet(self, frame: JudgedFrame, prepared: Prepared, chosen: Comparison) -> Verdict:
        """Remove the frame, unless it is the first that shows the view again."""
        state = self._state
        if state.noise is not None:
            threshold = self._settings.threshold(chosen.result)
            state.noise.learn(chosen.maps, threshold, quiet=True)
        away = state.turn - chosen.keeper.turn - 1
        if away >= AWAY:
            return self._keep(frame, prepared, returned(chosen.keeper.frame_id, away), chosen)
        return self._remove(frame, chosen)

    def _remove(self, frame: JudgedFrame, chosen: Comparison) -> Verdict:
        state, keeper = self._state, chosen.keeper
        threshold = self._settings.threshold(chosen.result)
        state.keepers.remove(keeper)
        state.keepers.insert(0, keeper.matched_at(frame, state.turn))
        state.note_removed(frame)
        return Verdict(
            frame_id=frame.frame_id,
            keeper_id=keeper.frame_id,
            score=chosen.result.score,
            reason=unchanged(keeper.frame_id, chosen.result, threshold),
            distance=distance_between(frame.vector, keeper.vector),
            tile=chosen.result.tile,
        )

    def _keep(
        self,
        frame: JudgedFrame,
        prepared: Prepared,
        reason: str,
        best: Comparison | None = None,
    ) -> Verdict:
        state = self._state
        keeper = Keeper.of(frame, prepared, state.turn)
        state.add_keeper(keeper, self._settings.keepers_compared)
        state.note_kept(frame)
        state.size_changed = False
        if best is None or not isfinite(best.result.score):
            return _kept(frame, reason)
        return Verdict(
            frame_id=frame.frame_id,
            keeper_id=None,
            score=best.result.score,
            reason=reason,
            distance=distance_between(frame.vector, best.keeper.vector),
            tile=best.result.tile,
        )

    def _reason_kept(self, frame: JudgedFrame, best: Comparison | None) -> str:
        if self._state.turned:
            return TURNED_AWAY if self._turned_for_good() else VIEW_CHANGED
        if best is None:
            return "another size" if self._state.size_changed else "first of a run"
        if not best.result.comparable:
            return best.result.reason
        threshold = self._settings.threshold(best.result)
        return changed(best.keeper.frame_id, best.result, threshold)


def _size_of(frame: JudgedFrame) -> tuple[int, int]:
    return frame.width, frame.height


def _kept(frame: JudgedFrame, reason: str) -> Verdict:
    return Verdict(frame_id=frame.frame_id, keeper_id=None, score=None, reason=reason)
