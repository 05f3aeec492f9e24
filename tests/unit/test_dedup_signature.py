"""Grey pictures and quantised tile maps."""

import numpy as np
import pytest

from daemon.signature import (
    make_grey,
    pack_grey,
    pack_tiles,
    quantise_tiles,
    unpack_grey,
    unpack_tiles,
)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((432, 768, 3), (180, 320)),
        ((1080, 1920), (180, 320)),
        ((100, 100, 3), (100, 100)),
        ((5000, 300), (640, 300)),
        ((1, 4000, 3), (1, 320)),
        ((4000, 1), (640, 1)),
    ],
)
def test_grey_is_320_wide_and_never_enlarged(
    shape: tuple[int, ...], expected: tuple[int, int]
) -> None:
    grey = make_grey(np.full(shape, 77, dtype=np.uint8))
    assert grey.shape == expected
    assert grey.dtype == np.uint8
    assert (grey == 77).all()


def test_colours_weigh_as_red_green_blue() -> None:
    red = np.zeros((8, 8, 3), dtype=np.uint8)
    red[..., 0] = 255
    assert make_grey(red)[0, 0] == 76  # 0.299 of 255


def test_grey_survives_packing_exactly() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (45, 80)).astype(np.uint8)
    assert np.array_equal(unpack_grey(pack_grey(grey)), grey)


@pytest.mark.parametrize("data", [b"", b"no picture"])
def test_damaged_grey_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        unpack_grey(data)


def test_quantised_tiles_keep_the_direction() -> None:
    tiles = np.random.default_rng(1).normal(0, 3, (14, 14, 112)).astype(np.float32)
    tiles[5, 6] = 0
    small = quantise_tiles(tiles)
    assert small.dtype == np.int8
    assert not small[5, 6].any()
    a, b = tiles.reshape(-1, 112), small.reshape(-1, 112).astype(np.float32)
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(1)[length > 0] / length[length > 0]
    assert cosine.min() > 0.9998


def test_tiles_survive_packing_exactly() -> None:
    tiles = np.arange(-60, 60).astype(np.int8).reshape(4, 5, 6)
    assert np.array_equal(unpack_tiles(pack_tiles(tiles), (4, 5, 6)), tiles)
    with pytest.raises(ValueError, match="reshape"):
        unpack_tiles(pack_tiles(tiles), (4, 5, 7))
