"""Scores by labels and on self-made pairs, and the things that are put in."""

import numpy as np
import pytest

from daemon.dedup.evaluation import (
    QUIET,
    LabelledFrame,
    curve_with_things,
    in_words,
    merged_of,
    score_labels,
)
from daemon.dedup.pasting import KINDS, Kind, paste, recompress, retake
from daemon.messages import ByteArray


def frames(*rows: tuple[str | None, int | None], camera: int = 1) -> list[LabelledFrame]:
    """(label, keeper) of frames 1, 2, 3 and so on."""
    return [LabelledFrame(n, camera, label, keeper) for n, (label, keeper) in enumerate(rows, 1)]


def test_quiet_found_counts_the_quiet_only() -> None:
    score = score_labels(
        frames(("empty", None), ("empty", 1), ("car", None), ("car", 3), ("empty", 1)), "empty"
    )
    assert (score.frames, score.quiet, score.quiet_found, score.changes) == (5, 3, 2, 2)
    assert (score.merged, score.events, score.events_lost, score.starts_lost) == ([], 1, [], [])


def test_a_change_merged_into_the_quiet_and_the_other_way_round_is_named() -> None:
    score = score_labels(
        frames(("empty", None), ("car", 1), ("empty", None), ("car", None), ("empty", 4)), "empty"
    )
    assert score.merged == [(2, 1), (5, 4)]
    assert (score.events, score.events_lost, score.starts_lost) == (2, [2], [2])


def test_an_event_is_kept_when_a_frame_of_it_stays() -> None:
    score = score_labels(
        frames(("empty", None), ("car", 1), ("car", None), ("car", 3), ("empty", 1)), "empty"
    )
    assert (score.events, score.events_lost, score.starts_lost) == (1, [], [2])


def test_unclear_and_unnamed_frames_count_nowhere() -> None:
    score = score_labels(
        frames(("empty", None), ("unclear", 1), (None, 1), ("", 1), ("car", None)), "empty"
    )
    assert (score.frames, score.quiet, score.quiet_found, score.merged) == (2, 1, 0, [])


def test_two_cameras_do_not_share_events_or_keepers() -> None:
    ours = [LabelledFrame(1, 1, "car", None)]
    theirs = [LabelledFrame(2, 2, "car", 1)]
    score = score_labels(ours + theirs, "empty")
    assert score.events == 2
    assert score.cross_camera == [(2, 1)]


def test_pairs_that_cannot_be_compared_are_not_merged() -> None:
    shares = merged_of({QUIET: [0.5, None, 3.0], "1 %": [2.3, 9.0]}, 2.3)
    assert [(one.kind, one.pairs, one.merged) for one in shares] == [(QUIET, 3, 1), ("1 %", 2, 1)]
    text = in_words(shares)
    assert "1 (33 %) are called a repeat" in text
    assert "1 of 2 of 1 %" in text
    assert "nothing new was lost" in in_words(merged_of({QUIET: [1.0], "1 %": [9.0]}, 2.3))
    assert "No pair" in in_words(merged_of({QUIET: [], "1 %": []}, 2.3))


def test_the_curve_tells_what_each_limit_would_lose() -> None:
    scores = np.exp(np.log(1.3) + 0.2 * np.random.default_rng(0).gumbel(size=200))
    rows = curve_with_things(scores, 200, 2.3, {QUIET: [1.0], "1 %": [1.9, 2.2, 7.0]})
    assert [row.things for row in rows] == [3] * len(rows)
    assert rows[0].things_merged == 0
    assert rows[-1].things_merged == 2
    assert curve_with_things(scores, 200, 2.3, None)[0].things is None


def scene(seed: int = 0, grey: bool = False) -> ByteArray:
    random = np.random.default_rng(seed)
    base = random.integers(60, 140, (18, 32, 3)).astype(np.uint8)
    picture = np.kron(base, np.ones((15, 15, 1), dtype=np.uint8))
    return np.repeat(picture[..., :1], 3, axis=2) if grey else picture


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_thing_covers_the_share_it_is_named_for(kind: Kind) -> None:
    picture = scene()
    shares = []
    for seed in range(12):
        pasted = paste(picture, scene(9), kind, np.random.default_rng(seed))
        changed = np.abs(pasted.astype(np.int16) - picture).max(axis=2) > 0
        shares.append(changed.mean())
    # its soft edge reaches a pixel further out
    assert kind.area * 0.75 < float(np.mean(shares)) < kind.area * 1.35


def test_a_half_transparent_thing_changes_half_as_much() -> None:
    picture, full, half = scene(), Kind("full", 0.02, 1.0), Kind("half", 0.02, 0.5)
    change = [
        np.abs(
            paste(picture, scene(9), kind, np.random.default_rng(4)).astype(np.float64) - picture
        ).sum()
        for kind in (full, half)
    ]
    assert change[1] == pytest.approx(change[0] / 2, rel=0.05)


def test_an_infrared_picture_gets_no_colours() -> None:
    pasted = paste(scene(grey=True), scene(9, grey=True), KINDS[-1], np.random.default_rng(0))
    assert (pasted[..., 0] == pasted[..., 2]).all()


def test_the_same_seed_gives_the_same_picture_and_taking_it_again_changes_it_a_little() -> None:
    picture = scene()
    first, again = (retake(picture, np.random.default_rng(7)) for _ in range(2))
    assert (first == again).all()
    difference = np.abs(first.astype(np.int16) - picture).mean()
    assert 0.5 < difference < 12
    assert recompress(picture, 90).shape == picture.shape
