"""The change test on small scenes with known changes."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from daemon.dedup.alignment import move
from daemon.dedup.change import (
    NoiseLimits,
    Prepared,
    judge_maps,
    prepare,
    residual_maps,
    score_map,
)
from daemon.dedup.light import fit_light
from daemon.dedup.residual import TileResidual
from daemon.messages import ByteArray, JudgedFrame

HEIGHT, WIDTH = 120, 160


def scene(seed: int = 0) -> NDArray[np.float32]:
    """A textured scene of grey levels 40 to 200, larger than the picture for shifting."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(40, 200, (20, 26)).astype(np.float32)
    return np.asarray(
        cv2.resize(coarse, (WIDTH + 20, HEIGHT + 20), interpolation=cv2.INTER_CUBIC),
        dtype=np.float32,
    )


def shot(view: NDArray[np.float32], seed: int, x: float = 0.0, y: float = 0.0) -> ByteArray:
    """A noisy picture of the scene, shifted by (x, y) pixels."""
    noise = np.random.default_rng(seed).normal(0, 1.0, (HEIGHT, WIDTH))
    matrix = np.array([[1, 0, x - 10], [0, 1, y - 10]], dtype=np.float64)
    seen = cv2.warpAffine(view, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)
    return np.asarray(np.clip(seen + noise, 0, 255), dtype=np.uint8)


def frame(
    grey: ByteArray, tiles: NDArray[np.int8] | None = None, size: tuple[int, int] | None = None
) -> Prepared:
    width, height = size or (grey.shape[1], grey.shape[0])
    return prepare(
        JudgedFrame(
            frame_id=1, seconds=None, day=None, width=width, height=height, grey=grey, tiles=tiles
        )
    )


def with_object(grey: ByteArray, level: int, side: int = 14) -> ByteArray:
    changed = grey.copy()
    changed[50 : 50 + side, 80 : 80 + side] = level
    return changed


def flat_noise(prepared: Prepared, level: float = 0.5) -> NoiseLimits:
    rows, columns = prepared.grey.shape[0] // 4 - 1, prepared.grey.shape[1] // 4 - 1
    return NoiseLimits(np.full((rows, columns), level, dtype=np.float32), None)


def test_an_identical_picture_scores_exactly_zero() -> None:
    grey = shot(scene(), 1)
    result = judge_maps(residual_maps(frame(grey), frame(grey)), flat_noise(frame(grey)))
    assert (result.score, result.comparable) == (0.0, True)


def test_sensor_noise_is_far_below_an_object_of_one_percent() -> None:
    quiet = residual_maps(frame(shot(scene(), 1)), frame(shot(scene(), 2)))
    changed = residual_maps(frame(with_object(shot(scene(), 1), 230)), frame(shot(scene(), 2)))
    assert quiet.pixel.max() < 1.0
    assert changed.pixel.max() > 10 * quiet.pixel.max()


def test_the_worst_tile_lies_on_the_object() -> None:
    changed = frame(with_object(shot(scene(), 1), 230))
    result = judge_maps(residual_maps(changed, frame(shot(scene(), 2))), flat_noise(changed))
    assert result.tile is not None
    x, y = result.tile[0] + result.tile[2] / 2, result.tile[1] + result.tile[3] / 2
    assert 80 / WIDTH <= x <= 94 / WIDTH
    assert 50 / HEIGHT <= y <= 64 / HEIGHT


@pytest.mark.parametrize(("x", "y"), [(0.4, -0.3), (2.3, 1.6), (-2.7, 0.0)])
def test_a_small_shift_is_measured_and_corrected(x: float, y: float) -> None:
    maps = residual_maps(frame(shot(scene(), 1, x, y)), frame(shot(scene(), 2)))
    assert maps.shift == pytest.approx((x, y), abs=0.4)
    assert maps.comparable
    # the sides that came into view may differ; what both show must not
    assert maps.pixel[2:-2, 2:-2].max() < 1.5


def test_a_large_shift_is_not_comparable() -> None:
    maps = residual_maps(frame(shot(scene(), 1, 9, 6)), frame(shot(scene(), 2)))
    assert not maps.comparable
    assert maps.displaced is not None
    assert maps.displaced > 0.5
    assert judge_maps(maps, flat_noise(frame(shot(scene(), 1)))).score == float("inf")


def test_another_scene_is_not_comparable() -> None:
    maps = residual_maps(frame(shot(scene(0), 1)), frame(shot(scene(7), 2)))
    assert not maps.comparable


def test_light_is_fitted_but_darkness_is_no_match() -> None:
    base = shot(scene(), 1).astype(np.float32)
    ramp = np.linspace(0.9, 1.1, WIDTH, dtype=np.float32)[None, :]
    brighter = np.clip(base * ramp + 5, 0, 255).astype(np.uint8)
    dark = (base * 0.05).astype(np.uint8)
    keeper = frame(shot(scene(), 2))
    assert residual_maps(frame(brighter), keeper).pixel.max() < 1.5
    refused = residual_maps(frame(dark), keeper)
    assert (refused.comparable, refused.reason) == (False, "the light is too different")


def test_another_size_is_not_comparable() -> None:
    grey = shot(scene(), 1)
    maps = residual_maps(frame(grey), frame(grey, size=(1920, 1080)))
    assert (maps.comparable, maps.reason) == (False, "another size")


@pytest.mark.parametrize("level", [0, 128, 255])
def test_featureless_pictures_compare_and_still_show_an_object(level: int) -> None:
    empty = np.full((HEIGHT, WIDTH), level, dtype=np.uint8)
    dim = empty.copy()
    dim[0, 0] = 127 if level != 127 else 0
    assert residual_maps(frame(empty), frame(dim)).comparable
    thing = residual_maps(frame(with_object(empty, 60)), frame(empty))
    assert thing.comparable
    assert thing.pixel.max() > 5
    assert np.isfinite(thing.pixel).all()


def test_comparing_leaves_both_frames_as_they_were() -> None:
    a, b = frame(shot(scene(), 1)), frame(shot(scene(), 2, 1.0))
    before = [
        array.copy() for one in (a, b) for array in (one.smooth, one.slope, one.texture.detail)
    ]
    first = residual_maps(a, b)
    after = [array for one in (a, b) for array in (one.smooth, one.slope, one.texture.detail)]
    assert all(np.array_equal(x, y) for x, y in zip(before, after, strict=True))
    assert np.array_equal(first.pixel, residual_maps(a, b).pixel)


def test_sides_that_are_no_multiple_of_four_are_seen_to_the_edge() -> None:
    grey = np.full((61, 83), 90, dtype=np.uint8)
    corner = grey.copy()
    corner[-4:, -4:] = 200
    maps = residual_maps(frame(corner), frame(grey))
    assert maps.pixel[-1, -1] == maps.pixel.max() > 5


def test_a_tiny_picture_is_not_comparable() -> None:
    a = np.zeros((3, 3), dtype=np.uint8)
    b = np.full((3, 3), 9, dtype=np.uint8)
    assert residual_maps(frame(a), frame(b)).reason == "too small to compare"


def test_tile_maps_join_by_the_geometric_mean() -> None:
    rng = np.random.default_rng(3)
    tiles = rng.integers(-127, 128, (14, 14, 8)).astype(np.int8)
    other = tiles.copy()
    other[3, 9] = -tiles[3, 9]
    a, b = frame(shot(scene(), 1), tiles), frame(shot(scene(), 2), other)
    maps = residual_maps(a, b)
    assert maps.tile is not None
    assert maps.tile[3, 9] == pytest.approx(2.0, abs=1e-5)
    assert np.delete(maps.tile.ravel(), 3 * 14 + 9).max() < 1e-6
    noise = replace(flat_noise(a), tile=np.full((14, 14), 0.01, dtype=np.float32))
    result = judge_maps(maps, noise)
    assert result.tile_score == pytest.approx(200, rel=1e-3)
    assert result.score == pytest.approx((result.pixel_score * 200) ** 0.5, rel=1e-3)
    assert result.tile is not None
    # the cell, and its neighbours: the network sees wider than its cell
    assert 8 / 14 <= result.tile[0] + result.tile[2] / 2 <= 11 / 14
    assert 2 / 14 <= result.tile[1] + result.tile[3] / 2 <= 5 / 14


def test_empty_cells_are_equal_to_each_other_only() -> None:
    tiles = np.ones((2, 2, 4), dtype=np.int8)
    empty = tiles.copy()
    empty[0, 0] = 0
    both, one = frame(shot(scene(), 1), empty), frame(shot(scene(), 1), tiles)
    same, apart = residual_maps(both, both).tile, residual_maps(both, one).tile
    assert same is not None
    assert apart is not None
    assert (same[0, 0], apart[0, 0]) == (0.0, 1.0)


def test_no_noise_model_means_no_verdict() -> None:
    a = frame(shot(scene(), 1))
    result = judge_maps(residual_maps(a, a), None)
    assert (result.comparable, result.reason) == (False, "noise model still learning")


def test_an_object_does_not_tilt_the_light() -> None:
    keeper = scene()[:HEIGHT, :WIDTH].copy()
    seen = keeper * 1.1
    seen[20:60, 20:60] = 255
    predicted = fit_light(seen, keeper)
    assert predicted is not None
    outside = np.abs(predicted - np.clip(keeper * 1.1, 0, 255))
    outside[15:65, 15:65] = 0
    assert outside.max() < 1.0


@pytest.mark.parametrize("level", [None, 230, 105])
def test_the_quick_search_finds_what_the_complete_map_holds(level: int | None) -> None:
    grey = shot(scene(), 1, 0.4, -0.3)
    maps = residual_maps(
        frame(grey if level is None else with_object(grey, level)), frame(shot(scene(), 2))
    )
    rng = np.random.default_rng(9)
    rows, columns = maps.grid
    noise = NoiseLimits(rng.uniform(0.2, 2.0, (rows, columns)).astype(np.float32), None)
    result, complete = judge_maps(maps, noise), score_map(maps, noise)
    assert result.score == pytest.approx(complete.max(), rel=1e-5)
    row, column = divmod(int(complete.argmax()), columns)
    assert result.tile is not None
    assert result.tile[:2] == pytest.approx((column * 4 / WIDTH, row * 4 / HEIGHT))


def test_two_weak_changes_at_different_places_do_not_add_up() -> None:
    tiles = np.random.default_rng(3).integers(-127, 128, (14, 14, 8)).astype(np.int8)
    far, near = tiles.copy(), tiles.copy()
    far[1, 1] = -tiles[1, 1]
    near[6, 7] = -tiles[6, 7]  # where the object stands
    keeper = frame(shot(scene(), 2), tiles)
    seen = with_object(shot(scene(), 1), 230)
    noise = replace(flat_noise(keeper), tile=np.full((14, 14), 0.1, dtype=np.float32))
    scores = [
        judge_maps(residual_maps(frame(seen, one), keeper), noise).score for one in (far, near)
    ]
    assert 2 * scores[0] < scores[1]


@pytest.mark.parametrize("shift", [(0.4, -0.3), (-2.7, 3.0), (0.0, 0.5)])
def test_moving_a_picture_is_what_warping_does(shift: tuple[float, float]) -> None:
    picture = scene()[:HEIGHT, :WIDTH].copy()
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], dtype=np.float64)
    warped = cv2.warpAffine(
        picture, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    # warpAffine rounds to 1/32 px
    assert np.abs(move(picture, shift) - warped).max() < 1.0


@pytest.mark.parametrize("gain", [25, 3])
def test_leaves_that_wobble_everywhere_do_not_hide_what_is_new(gain: int) -> None:
    keeper = np.random.default_rng(4).uniform(0, 200, (HEIGHT, WIDTH)).astype(np.float32)
    seen = np.roll(keeper, 1, axis=1)  # by itself every tile is far off, a pixel further none is
    seen[60:68, 80:88] += gain
    residual = TileResidual(seen, keeper, np.zeros_like(keeper))
    scale = np.ones_like(residual.complete)
    scale[:, 0] = 0.01  # the side that came into view
    row, column, value = TileResidual(seen, keeper, np.zeros_like(keeper)).strongest(scale)
    assert (row, column) == (15, 20)
    assert value == pytest.approx(gain / 2, rel=0.01)
    assert value == pytest.approx((residual.complete * scale).max(), rel=1e-5)
