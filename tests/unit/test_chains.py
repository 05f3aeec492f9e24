"""A resembles B, B resembles C, A does not resemble C: the judge on random distances."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from daemon.dedup import comparing, frame_judge
from daemon.dedup.change import Prepared, ResidualMaps
from daemon.dedup.comparing import JudgeSettings
from daemon.dedup.grouping import judge_camera
from daemon.messages import ChangeResult, JudgedFrame
from tests.rendered_camera import frame

SETTINGS = JudgeSettings(max_change=1.0, max_change_pixels=1.0)
FRAMES = 60


class Distances:
    """In the place of the change test: the score of a pair is drawn, not measured."""

    def __init__(self, scores: NDArray[np.float64]) -> None:
        self.scores = scores

    def maps(self, one: Prepared, other: Prepared) -> ResidualMaps:
        still = np.zeros((4, 4), dtype=np.float32)
        return ResidualMaps(
            residual=still,
            tile=None,
            comparable=True,
            reason=f"{one.grey[0, 0]} {other.grey[0, 0]}",
            shift=(0.0, 0.0),
            size=(64, 64),
            displaced=0.0,
        )

    def judged(self, maps: ResidualMaps, _noise: object) -> ChangeResult:
        one, other = (int(word) for word in maps.reason.split())
        score = float(self.scores[one, other])
        return ChangeResult(
            comparable=True, reason="", score=score, pixel_score=score, tile_score=None
        )


@pytest.fixture(scope="module")
def drawn() -> Iterator[Distances]:
    """The judge looks up its scores for the length of this module."""
    distances = Distances(np.zeros((1, 1)))
    with pytest.MonkeyPatch.context() as patch:
        for module in (comparing, frame_judge):
            patch.setattr(module, "residual_maps", distances.maps)
        patch.setattr(comparing, "judge_maps", distances.judged)
        yield distances


def pictures() -> Iterator[JudgedFrame]:
    for number in range(FRAMES):
        yield frame(number, np.full((64, 64), number, dtype=np.uint8))


def keepers(drawn: Distances, seed: int, alike: float) -> dict[int, int | None]:
    """Frame -> its keeper, where each pair is alike with this chance."""
    rng = np.random.default_rng(seed)
    upper = np.triu(np.where(rng.random((FRAMES, FRAMES)) < alike, 0.5, 3.0), 1)
    drawn.scores = upper + upper.T
    verdicts = judge_camera(pictures(), settings=SETTINGS).verdicts
    return {one.frame_id: one.keeper_id for one in verdicts}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), alike=st.floats(0.0, 1.0))
def test_whoever_is_removed_resembles_a_frame_that_is_kept(
    drawn: Distances, seed: int, alike: float
) -> None:
    keeper_of = keepers(drawn, seed, alike)
    assert len(keeper_of) == FRAMES
    for removed, keeper in keeper_of.items():
        if keeper is not None:
            assert keeper_of[keeper] is None, "its keeper stays"
            assert drawn.scores[removed, keeper] <= SETTINGS.max_change, "and it resembles itself"


def test_the_draw_is_no_matter_of_course(drawn: Distances) -> None:
    removed = [one for one in keepers(drawn, 1, 0.4).values() if one is not None]
    assert len(set(removed)) > 3
    assert 10 < len(removed) < FRAMES - 10
