"""How well the change test does: by the owner's labels, or on pairs that the program made itself.

Both answer the same two questions: how much of what is quiet is found, and is anything new called
a repeat. Pure; imports nothing heavy.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from daemon.dedup.threshold import CurvePoint, Scores, curve

QUIET: Final = "quiet"
"""Name of the pairs in which nothing is new."""
UNCLEAR: Final = frozenset({"", "unclear"})
"""Labels that are left out of every count."""

PairScores = Mapping[str, Sequence[float | None]]
"""Kind of pair -> change scores; None where the two could not be compared."""


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """A judged frame, its label (None: the table does not name it) and its keeper, if it has one.

    Frames are handed over in capture order, camera by camera.
    """

    frame_id: int
    camera_id: int
    label: str | None
    keeper_id: int | None


@dataclass(slots=True, kw_only=True)
class LabelledScore:
    """What stored verdicts are worth by labels.

    `quiet_found`: redundant ones of the `quiet` frames. `merged`: (frame, keeper) of different
    labels, that is, a change that a frame without it stands for. `events`: runs of one label
    other than the quiet one. `events_lost`: first frames of those of which nothing is kept;
    `starts_lost`: of those whose first frame is not kept. `cross_camera`: (frame, keeper) of two
    cameras.
    """

    frames: int = 0
    quiet: int = 0
    quiet_found: int = 0
    changes: int = 0
    events: int = 0
    merged: list[tuple[int, int]] = field(default_factory=list)
    events_lost: list[int] = field(default_factory=list)
    starts_lost: list[int] = field(default_factory=list)
    cross_camera: list[tuple[int, int]] = field(default_factory=list)


def score_labels(frames: Sequence[LabelledFrame], quiet: str) -> LabelledScore:
    """Score the verdicts on labelled frames.

    Args:
        frames: In capture order, camera by camera, with the unlabelled ones among them.
        quiet: The label of frames in which nothing happens.
    """
    score = LabelledScore()
    labels = {one.frame_id: one.label for one in frames if one.label not in UNCLEAR}
    cameras = {one.frame_id: one.camera_id for one in frames}
    for one in frames:
        keeper = one.keeper_id
        if keeper is not None and cameras.get(keeper, one.camera_id) != one.camera_id:
            score.cross_camera.append((one.frame_id, keeper))
        label = labels.get(one.frame_id)
        if label is None:
            continue
        score.frames += 1
        if label == quiet:
            score.quiet += 1
            score.quiet_found += keeper is not None
        else:
            score.changes += 1
        if keeper is not None and labels.get(keeper, label) != label:
            score.merged.append((one.frame_id, keeper))
    _count_events(frames, quiet, score)
    return score


def _count_events(frames: Sequence[LabelledFrame], quiet: str, score: LabelledScore) -> None:
    for event in _events(frames, quiet):
        score.events += 1
        if event[0].keeper_id is not None:
            score.starts_lost.append(event[0].frame_id)
        inside = {one.frame_id for one in event}
        # a frame that a frame outside stands for is gone; one that stands for itself is not
        if all(one.keeper_id is not None and one.keeper_id not in inside for one in event):
            score.events_lost.append(event[0].frame_id)


def _events(frames: Iterable[LabelledFrame], quiet: str) -> list[list[LabelledFrame]]:
    """Runs of one label that is neither quiet nor unclear; unlabelled frames do not end a run."""
    events: list[list[LabelledFrame]] = []
    last: tuple[int, str] | None = None
    for one in frames:
        if one.label is None or one.label in UNCLEAR:
            continue
        here = (one.camera_id, one.label)
        if one.label != quiet:
            if here == last:
                events[-1].append(one)
            else:
                events.append([one])
        last = here
    return events


@dataclass(frozen=True, slots=True, kw_only=True)
class KindShare:
    """Of the pairs of one kind: how many were compared, and how many are called a repeat."""

    kind: str
    pairs: int
    merged: int


def merged_of(scores: PairScores, limit: float) -> list[KindShare]:
    """How many pairs of each kind a limit calls a repeat; what cannot be compared is none."""
    return [
        KindShare(
            kind=kind,
            pairs=len(found),
            merged=sum(score is not None and score <= limit for score in found),
        )
        for kind, found in scores.items()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveRow:
    """A point of a camera's curve, with the things put in that it would lose (None: not tested)."""

    point: CurvePoint
    things: int | None
    things_merged: int | None


def curve_with_things(
    scores: Scores, frames: int, ceiling: float, pairs: PairScores | None
) -> list[CurveRow]:
    """The predicted curve of a camera, and what each limit would have lost of the things put in.

    Args:
        scores: The camera's stored change scores.
        frames: How many of its frames were judged.
        ceiling: The largest safe limit.
        pairs: Scores of the self-made pairs; None or empty if there are none.
    """
    rows = []
    for point in curve(scores, frames, ceiling):
        kinds = [one for one in merged_of(pairs or {}, point.limit) if one.kind != QUIET]
        rows.append(
            CurveRow(
                point=point,
                things=sum(one.pairs for one in kinds) if kinds else None,
                things_merged=sum(one.merged for one in kinds) if kinds else None,
            )
        )
    return rows


def in_words(kinds: Sequence[KindShare]) -> str:
    """The outcome on self-made pairs as an owner understands it."""
    quiet = next((one for one in kinds if one.kind == QUIET), None)
    things = [one for one in kinds if one.kind != QUIET]
    if quiet is None or quiet.pairs == 0:
        return "No pair could be made: none of its judged pictures can be read any more."
    put_in, lost = sum(one.pairs for one in things), sum(one.merged for one in things)
    text = (
        f"Of {quiet.pairs} views taken once more with other light and noise,"
        f" {quiet.merged} ({_percent(quiet.merged, quiet.pairs)}) are called a repeat."
        f" Of {put_in} pictures with something put in, {lost} ({_percent(lost, put_in)}) are"
    )
    if lost == 0:
        return f"{text}: nothing new was lost."
    worst = ", ".join(f"{one.merged} of {one.pairs} of {one.kind}" for one in things if one.merged)
    return f"{text}, by the size of the thing: {worst}."


def _percent(part: int, whole: int) -> str:
    share = 100 * part / max(1, whole)
    return f"{share:.1f} %" if 0 < share < 10 else f"{share:.0f} %"
