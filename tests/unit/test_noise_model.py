"""The camera's noise: warm-up, online learning, exact storage."""

import numpy as np
import pytest
from numpy.typing import NDArray

from daemon.dedup.change import ResidualMaps
from daemon.dedup.noise import NoiseModel
from daemon.messages import FloatArray

SHAPE = (9, 12)


def maps(pixel: NDArray[np.floating], tile: FloatArray | None = None) -> ResidualMaps:
    return ResidualMaps(pixel.astype(np.float32), tile, True, "", (0.0, 0.0), (52, 40), 0.0)


def quiet_pairs(count: int, seed: int = 0) -> list[ResidualMaps]:
    rng = np.random.default_rng(seed)
    return [
        maps(rng.uniform(0.3, 0.6, SHAPE), rng.uniform(0.01, 0.02, (14, 14)).astype(np.float32))
        for _ in range(count)
    ]


def built(pairs: list[ResidualMaps]) -> NoiseModel:
    model = NoiseModel.from_pairs(pairs)
    assert model is not None
    return model


def test_somebody_in_the_warm_up_does_not_raise_the_noise() -> None:
    pairs = quiet_pairs(19)
    for pair in pairs[:4]:  # in the quieter half, as the walker is small
        pair.pixel[4, 4] = 30.0
        pair.pixel[:] *= 0.9
    limits = built(pairs).limits().pixel
    # capped at three times the tile's own median plus the camera's median
    assert limits[4, 4] < 3 * 0.6 + 0.6
    assert limits.min() > 0.4


def test_only_the_quieter_half_counts() -> None:
    loud = [maps(np.full(SHAPE, 20.0)) for _ in range(9)]
    limits = built(quiet_pairs(10) + loud).limits().pixel
    assert limits.max() < 1.5


def test_a_camera_on_which_everything_changes_is_not_granted_that() -> None:
    limits = built([maps(np.full(SHAPE, 20.0)) for _ in range(19)]).limits().pixel
    assert limits.max() <= 7.0


def test_a_camera_that_is_never_still_is_granted_less_in_both_maps() -> None:
    rng = np.random.default_rng(3)
    cells = rng.uniform(0.1, 0.2, (14, 14)).astype(np.float32)
    still = built([maps(np.full(SHAPE, 0.9), cells) for _ in range(19)]).limits()
    never = built([maps(np.full(SHAPE, 2.0), cells) for _ in range(19)]).limits()
    assert still.tile is not None and never.tile is not None
    assert never.tile == pytest.approx(still.tile / 2)
    # more than twice the residual, and yet not more noise
    assert never.pixel.max() < 1.2 * still.pixel.max()


def test_too_few_comparable_pairs_give_no_model() -> None:
    refused = [
        ResidualMaps(np.zeros((0, 0), np.float32), None, False, "x", (0.0, 0.0), (52, 40), 1.0)
        for _ in range(15)
    ]
    assert NoiseModel.from_pairs(quiet_pairs(4) + refused) is None
    assert NoiseModel.from_pairs(quiet_pairs(5) + refused) is not None


def test_a_perfectly_still_picture_still_has_a_limit() -> None:
    still = [maps(np.zeros(SHAPE), np.zeros((14, 14), np.float32)) for _ in range(19)]
    limits = built(still).limits()
    assert limits.tile is not None
    assert limits.pixel.min() > 0
    assert limits.tile.min() > 0


def test_the_level_settles_at_the_97_percent_quantile() -> None:
    rng = np.random.default_rng(5)
    model = built(quiet_pairs(19))
    for _ in range(3000):
        model.learn(maps(rng.uniform(0, 2, SHAPE)), 2.3, quiet=True)
    assert float(np.median(model.arrays()["pixel_level"])) == pytest.approx(1.94, abs=0.15)


def test_a_changed_frame_teaches_nothing_unless_a_tile_always_changes() -> None:
    model = built(quiet_pairs(19))
    before = model.arrays()["pixel_level"].copy()
    clock = np.full(SHAPE, 0.4)
    clock[2, 3] = 25.0
    for _ in range(9):
        model.learn(maps(clock), 2.3, quiet=False)
    assert np.array_equal(model.arrays()["pixel_level"], before)
    for _ in range(60):
        model.learn(maps(clock), 2.3, quiet=False)
    after = model.arrays()["pixel_level"]
    assert 2.3 * after[2, 3] > 20
    after[2, 3] = before[2, 3]
    assert np.array_equal(after, before)


def test_a_view_that_changes_everywhere_teaches_nothing() -> None:
    model = built(quiet_pairs(19))
    before = model.arrays()["pixel_level"].copy()
    weather = np.full(SHAPE, 0.4)
    weather[:5] = 25.0
    for _ in range(100):
        model.learn(maps(weather), 2.3, quiet=False)
    assert np.array_equal(model.arrays()["pixel_level"], before)


def test_a_map_of_another_shape_is_ignored() -> None:
    model = built(quiet_pairs(19))
    before = model.to_bytes()
    model.learn(maps(np.full((3, 3), 9.0)), 2.3, quiet=True)
    assert model.to_bytes() == before


@pytest.mark.parametrize("with_tiles", [True, False])
def test_bytes_bring_back_the_same_model(with_tiles: bool) -> None:
    pairs = quiet_pairs(19)
    if not with_tiles:
        pairs = [maps(pair.pixel) for pair in pairs]
    model = built(pairs)
    model.learn(pairs[0], 2.3, quiet=True)
    again = NoiseModel.from_bytes(model.to_bytes())
    assert again.to_bytes() == model.to_bytes()
    for one in (model, again):
        one.learn(pairs[3], 2.3, quiet=True)
    assert np.array_equal(again.limits().pixel, model.limits().pixel)
    assert (again.limits().tile is not None) == with_tiles


def test_who_passes_now_and_then_never_widens_the_noise() -> None:
    model = built(quiet_pairs(19))
    passing = np.full(SHAPE, 0.4)
    passing[4, 4] = 6.0
    for round_ in range(400):
        quiet = passing if round_ % 5 == 0 else np.full(SHAPE, 0.4)
        model.learn(maps(quiet), 2.6, quiet=True)
    # one frame in five is far over the 97 % quantile; the median is not moved by it
    assert model.arrays()["pixel_level"][4, 4] < 3 * 0.5 + 0.5


def test_all_pairs_teach_where_all_are_known_to_be_quiet() -> None:
    pairs = quiet_pairs(10) + [maps(np.full(SHAPE, 0.9), np.full((14, 14), 0.02)) for _ in range(9)]
    half, whole = built(pairs), NoiseModel.from_pairs(pairs, quiet_share=1.0)
    assert whole is not None
    assert whole.arrays()["pixel_level"].min() > half.arrays()["pixel_level"].max()


def test_a_state_of_release_0_1_is_read() -> None:
    arrays = {k: v for k, v in built(quiet_pairs(19)).arrays().items() if "usual" not in k}
    again = NoiseModel.from_arrays(arrays)
    again.learn(quiet_pairs(1)[0], 2.6, quiet=True)
    assert again.limits().pixel.min() > 0.2
