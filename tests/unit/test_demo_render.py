import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from daemon.demo.camera import FIRST_MINUTE, demo_pace, frame_name
from daemon.demo.render import (
    BROKEN,
    BURST,
    REPEATED,
    STRANGER,
    capture_time,
    is_night,
    render_frame,
    render_jpeg,
    visitor,
)

SEED = 7


def quiet(index: int) -> bool:
    """Whether nobody is in this frame."""
    return visitor(index) is None


def test_a_frame_follows_from_its_arguments() -> None:
    first = render_frame(60, SEED)
    assert first.shape == (480, 640, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, render_frame(60, SEED))
    assert not np.array_equal(first, render_frame(61, SEED))
    assert not np.array_equal(first, render_frame(60, SEED + 1))


def test_neighbours_differ_by_noise_and_by_little_light() -> None:
    before, after = (render_frame(index, SEED).astype(np.float64) for index in (91, 92))
    assert quiet(91)
    assert quiet(92)
    assert abs(after.mean() / before.mean() - 1) < 0.01
    assert 0.5 < (after - before).std() < 12


@pytest.mark.parametrize("index", [7, 16, 25, 52, 61, 88, 97, 115])
def test_a_visitor_is_seen(index: int) -> None:
    assert visitor(index) is not None
    assert is_night(index) == is_night(index - 1)
    with_guest, without, other = (
        render_frame(number, SEED).astype(np.float64).mean(axis=2)
        for number in (index, index - 1, index - 2)
    )
    # Averaged over tiles of 16 pixels the noise is gone; what is left is somebody.
    usual, seen = (
        np.abs(a - b).reshape(30, 16, 40, 16).mean(axis=(1, 3)).max()
        for a, b in ((without, other), (with_guest, without))
    )
    assert seen > 2 * usual


def test_most_frames_show_nobody() -> None:
    empty = sum(quiet(index) for index in range(120))
    assert empty > 100


def test_night_is_grey_and_day_is_not() -> None:
    assert is_night(0)
    assert not is_night(90)
    night, day = render_frame(0, SEED).astype(int), render_frame(90, SEED).astype(int)
    assert np.abs(night[..., 0] - night[..., 2]).max() == 0
    assert np.abs(day[..., 0] - day[..., 2]).mean() > 10
    nights = [is_night(index) for index in range(100)]
    assert nights.count(True) >= 30
    assert nights.count(False) >= 30
    assert is_night(1100)


def test_the_stranger_hides_a_good_part_of_the_picture_and_comes_late() -> None:
    assert STRANGER.start > FIRST_MINUTE
    changed = np.abs(
        render_frame(STRANGER.start, SEED).astype(int) - render_frame(STRANGER.start - 1, SEED)
    )
    assert (changed.max(axis=2) > 40).mean() > 0.3
    assert demo_pace(STRANGER.stop) < 110


def test_times_and_names_ascend() -> None:
    times = [capture_time(index) for index in range(200)]
    assert all(a < b for a, b in pairwise(times))
    steps = {(b - a).total_seconds() for a, b in pairwise(times)}
    assert steps <= {60.0, 1.0, 60.0 - len(BURST) + 1}
    names = [frame_name(index) for index in range(200)]
    assert names == sorted(set(names))
    assert names[0] == "demo-20260601-044500.jpg"


def test_the_pace() -> None:
    dues = [demo_pace(index) for index in range(200)]
    assert dues == sorted(dues)
    assert sum(due < 60 for due in dues) == FIRST_MINUTE >= 100
    assert dues[BURST.stop - 1] - dues[BURST.start] <= 1.0
    assert len(BURST) == 12
    assert dues[150] - dues[149] == 2.0


def test_the_camera_sends_jpegs_one_of_them_twice_and_one_in_half() -> None:
    whole = render_jpeg(BROKEN - 1, SEED)
    with Image.open(io.BytesIO(whole)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (640, 480))
        picture.load()
    assert render_jpeg(REPEATED, SEED) == render_jpeg(REPEATED - 1, SEED)
    broken = render_jpeg(BROKEN, SEED)
    assert broken.startswith(b"\xff\xd8")
    with Image.open(io.BytesIO(broken)) as picture, pytest.raises(OSError, match="truncated"):
        picture.load()
