"""The patch bank: what a camera has shown at each place, and what is strange there."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from numpy.typing import NDArray

from daemon.clustering.bank_file import pack_bank, unpack_bank
from daemon.clustering.patches import FARTHEST, MAX_VALUES, TilePatches, unit_rows_of
from daemon.clustering.places import (
    READY_FRAMES,
    STANDING_FRAMES,
    PatchBank,
    PlaceScore,
    TileMap,
)
from daemon.signature import quantise_tiles

ROWS, COLUMNS, CHANNELS = 6, 8, 48
SEEN = 30


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def scene(random: np.random.Generator) -> NDArray[np.float32]:
    """Every tile of the empty picture looks different."""
    return a_scene(random)


def a_scene(random: np.random.Generator) -> NDArray[np.float32]:
    return random.normal(size=(ROWS, COLUMNS, CHANNELS)).astype(np.float32)


def frame(
    scene: NDArray[np.float32],
    random: np.random.Generator,
    *,
    thing: NDArray[np.float32] | None = None,
    at: tuple[int, int] = (0, 0),
) -> TileMap:
    """The scene with sensor noise, and a thing that covers three tiles from `at` to the right."""
    noisy = scene + random.normal(scale=0.1, size=scene.shape).astype(np.float32)
    if thing is not None:
        noisy[at[0], at[1] : at[1] + 3] = thing
    return quantise_tiles(noisy)


def taught(scene: NDArray[np.float32], random: np.random.Generator) -> PatchBank:
    bank = PatchBank()
    for _ in range(SEEN):
        bank.grow(frame(scene, random))
    return bank


def score_of(bank: PatchBank, tiles: TileMap) -> PlaceScore:
    score = bank.score(tiles)
    assert score is not None
    return score


def a_thing(random: np.random.Generator) -> NDArray[np.float32]:
    return random.normal(size=(3, CHANNELS)).astype(np.float32)


def test_empty_bank_has_no_opinion(scene: NDArray[np.float32], random: np.random.Generator) -> None:
    bank = PatchBank()
    assert bank.score(frame(scene, random)) is None
    assert (len(bank), bank.ready) == (0, False)


def test_ready_after_enough_frames(scene: NDArray[np.float32], random: np.random.Generator) -> None:
    bank = PatchBank()
    ready = []
    for _ in range(READY_FRAMES):
        ready.append(bank.ready)
        bank.grow(frame(scene, random))
    assert not any(ready)
    assert bank.ready


def test_strange_place_is_found_where_it_is(
    scene: NDArray[np.float32], random: np.random.Generator
) -> None:
    bank = taught(scene, random)
    usual = score_of(bank, frame(scene, random))
    strange = score_of(bank, frame(scene, random, thing=a_thing(random), at=(4, 2)))
    assert usual.score < 0.05
    assert strange.score > 0.5
    x, y, width, height = strange.tile
    assert (y, width, height) == (4 / ROWS, 1 / COLUMNS, 1 / ROWS)
    assert x in {2 / COLUMNS, 3 / COLUMNS, 4 / COLUMNS}


def test_score_is_the_mean_of_the_three_strangest_tiles(
    scene: NDArray[np.float32], random: np.random.Generator
) -> None:
    bank = PatchBank()
    tiles = quantise_tiles(scene)
    bank.grow(tiles)
    turned = tiles.copy()
    turned[1, 1:3] = -turned[1, 1:3]  # nothing around it looks like that: distance 1 or so
    assert score_of(bank, tiles).score == pytest.approx(0, abs=1e-6)
    two = score_of(bank, turned).score
    turned[1, 3] = -turned[1, 3]
    assert score_of(bank, turned).score == pytest.approx(1.5 * two, rel=0.15)


def test_scoring_changes_nothing(scene: NDArray[np.float32], random: np.random.Generator) -> None:
    bank = taught(scene, random)
    before = bank.to_bytes()
    strange = frame(scene, random, thing=a_thing(random))
    assert score_of(bank, strange) == score_of(bank, strange)
    assert bank.to_bytes() == before


@pytest.mark.parametrize(("shift", "known"), [((1, 1), True), ((2, 0), False), ((0, -3), False)])
def test_known_thing_may_stand_one_tile_further(
    scene: NDArray[np.float32], random: np.random.Generator, shift: tuple[int, int], known: bool
) -> None:
    bank = taught(scene, random)
    thing = np.repeat(a_thing(random)[:1], 3, axis=0)
    bank.grow(frame(scene, random, thing=thing, at=(2, 3)))
    moved = frame(scene, random, thing=thing, at=(2 + shift[0], 3 + shift[1]))
    assert (score_of(bank, moved).score < 0.05) is known


def test_left_and_right_edge_are_no_neighbours(
    scene: NDArray[np.float32], random: np.random.Generator
) -> None:
    bank = taught(scene, random)
    swapped = frame(scene, random)
    swapped[1:4, 0] = swapped[0:3, -1]  # the tiles before them, row by row
    assert score_of(bank, swapped).score > 0.5


def test_full_bank_grows_coarser_and_keeps_every_tile() -> None:
    random = np.random.default_rng(1)
    shape = (14, 14, 112)
    patches = TilePatches.empty(shape)
    everything = np.ones(14 * 14, dtype=bool)
    unit = np.empty(0, dtype=np.float32)
    for _ in range(30):
        tiles = quantise_tiles(random.normal(size=shape).astype(np.float32)).reshape(-1, 112)
        unit = unit_rows_of(tiles)
        patches.add(tiles, unit, everything)
        assert len(patches) <= MAX_VALUES // 112
        assert len(np.unique(patches.tiles)) == 14 * 14
        assert (np.diff(patches.tiles) >= 0).all()
    assert patches.radius > 0.1
    assert float(patches.distances(unit).max()) <= patches.radius


WIDE = (1, 1, 4_000)
"""So many channels that one tile fills the bank with 56 patches."""


def wide_tiles(random: np.random.Generator) -> Iterator[NDArray[np.int8]]:
    """Patches that are ever farther from a few centres, so that every one is news."""
    centres = random.normal(size=(3, WIDE[2])).astype(np.float32)
    for number in range(1_000):
        noise = random.normal(scale=0.5 + number / 200, size=WIDE[2]).astype(np.float32)
        yield quantise_tiles((centres[number % 3] + noise).reshape(WIDE)).reshape(1, -1)


def test_thinned_patches_cover_those_that_went_and_the_newest_stays() -> None:
    patches = TilePatches.empty(WIDE)
    radius = patches.radius
    for tile in wide_tiles(np.random.default_rng(2)):
        before = patches.directions
        patches.add(tile, unit_rows_of(tile), np.ones(1, dtype=bool))
        if patches.radius > radius:
            break
    far = [float(patches.distances(unit_rows_of(row[None]))[0]) for row in before]
    assert len(patches) < len(before) == MAX_VALUES // WIDE[2]
    assert 0.1 < max(far) <= patches.radius
    assert (patches.directions[-1] == tile[0]).all()


def test_nothing_is_known_where_nothing_was_learnt(
    scene: NDArray[np.float32], random: np.random.Generator
) -> None:
    tiles = quantise_tiles(scene).reshape(-1, CHANNELS)
    patches = TilePatches.empty((ROWS, COLUMNS, CHANNELS))
    patches.add(tiles, unit_rows_of(tiles), np.arange(len(tiles)) == 0)
    far = patches.distances(unit_rows_of(tiles)).reshape(ROWS, COLUMNS)
    assert far[0, 0] == pytest.approx(0, abs=1e-6)
    assert (far[2:] == 1).all()
    assert (far[:, 2:] == 1).all()


def test_tile_without_direction_is_never_strange(
    scene: NDArray[np.float32], random: np.random.Generator
) -> None:
    bank = PatchBank()
    dark = frame(scene, random)
    dark[2] = 0
    bank.grow(dark)
    assert len(bank) == (ROWS - 1) * COLUMNS
    assert score_of(bank, dark).score == pytest.approx(0, abs=1e-6)
    assert score_of(bank, np.zeros_like(dark)).score == 0


def test_distances_are_cosine_distances(
    scene: NDArray[np.float32], random: np.random.Generator
) -> None:
    tiles = quantise_tiles(scene).reshape(-1, CHANNELS)
    unit = unit_rows_of(tiles)
    patches = TilePatches.empty((ROWS, COLUMNS, CHANNELS))
    patches.add(tiles, unit, np.ones(len(unit), dtype=bool))
    row, column = np.divmod(np.arange(len(unit)), COLUMNS)
    near = (abs(row - row[:, None]) <= 1) & (abs(column - column[:, None]) <= 1)
    other = unit_rows_of(quantise_tiles(a_scene(random)).reshape(-1, CHANNELS))
    expected = 1 - np.where(near, other @ unit.T, -FARTHEST).max(axis=1)
    np.testing.assert_allclose(patches.distances(other), expected, atol=1e-6)


def test_same_frames_give_the_same_bank_also_across_a_restart(
    scene: NDArray[np.float32], random: np.random.Generator
) -> None:
    thing = a_thing(random)
    frames = [
        frame(scene, random, thing=thing if n % 5 else None, at=(1, n % 5)) for n in range(60)
    ]
    straight, stopped = PatchBank(), PatchBank()
    for number, tiles in enumerate(frames):
        assert straight.score(tiles) == stopped.score(tiles)
        for bank in (straight, stopped):
            if number % 7 == 6:
                bank.withhold(tiles)
            else:
                bank.grow(tiles)
        stopped = PatchBank.from_bytes(stopped.to_bytes())
    assert stopped.to_bytes() == straight.to_bytes()


def test_full_bank_goes_on_as_coarse_as_it_was_after_a_restart() -> None:
    straight = PatchBank()
    for number, tile in enumerate(islice(wide_tiles(np.random.default_rng(3)), 120)):
        straight.grow(tile.reshape(WIDE))
        if number == 80:
            stopped = PatchBank.from_bytes(straight.to_bytes())
        elif number > 80:
            stopped.grow(tile.reshape(WIDE))
            assert stopped.to_bytes() == straight.to_bytes()


def test_novel_frame_does_not_become_usual(
    scene: NDArray[np.float32], random: np.random.Generator
) -> None:
    bank = taught(scene, random)
    scores = []
    for number in range(3 * STANDING_FRAMES):  # it walks from place to place
        strange = frame(scene, random, thing=a_thing(random), at=(number % 3 * 2, 1 + number % 4))
        scores.append(score_of(bank, strange).score)
        assert not bank.withhold(strange)
    assert min(scores) > 0.5


def test_rest_of_a_novel_frame_is_learnt(
    scene: NDArray[np.float32], random: np.random.Generator
) -> None:
    bank = taught(scene, random)
    dusk = scene + random.normal(scale=0.7, size=scene.shape).astype(np.float32)
    dusk[2, 2:5] = scene[2, 2:5]  # where the thing hides what it looks like
    before = score_of(bank, frame(dusk, random)).score
    strange = frame(dusk, random, thing=-scene[2, 2:5], at=(2, 2))
    bank.withhold(strange)
    assert score_of(bank, frame(dusk, random)).score < before / 2
    assert score_of(bank, strange).score > 0.5


def test_what_comes_to_stay_is_learnt_in_time(
    scene: NDArray[np.float32], random: np.random.Generator
) -> None:
    bank = taught(scene, random)
    thing = a_thing(random)
    learnt = []
    for number in range(STANDING_FRAMES):
        learnt.append(bank.withhold(frame(scene, random, thing=thing, at=(3, 1 + number % 2))))
        bank = PatchBank.from_bytes(bank.to_bytes())
    assert learnt == [False] * (STANDING_FRAMES - 1) + [True]
    assert score_of(bank, frame(scene, random, thing=thing, at=(3, 1))).score < 0.05


def test_usual_frame_in_between_starts_the_count_again(
    scene: NDArray[np.float32], random: np.random.Generator
) -> None:
    bank = taught(scene, random)
    thing = a_thing(random)
    for _ in range(2):
        for _ in range(STANDING_FRAMES - 1):
            assert not bank.withhold(frame(scene, random, thing=thing))
        bank.grow(frame(scene, random))


def test_first_frame_is_taught_whoever_asks(
    scene: NDArray[np.float32], random: np.random.Generator
) -> None:
    bank = PatchBank()
    tiles = frame(scene, random)
    assert bank.withhold(tiles)
    assert score_of(bank, tiles).score == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shape", [(ROWS, COLUMNS, CHANNELS + 1), (COLUMNS, ROWS, CHANNELS)])
def test_map_of_another_shape_is_refused(
    scene: NDArray[np.float32], random: np.random.Generator, shape: tuple[int, int, int]
) -> None:
    bank = taught(scene, random)
    other = np.ones(shape, dtype=np.int8)
    for refuse in (bank.score, bank.grow, bank.withhold):
        with pytest.raises(ValueError, match="does not fit"):
            refuse(other)


@pytest.mark.parametrize("shape", [(5, 5), (0, 5, 3)])
def test_no_tile_map_at_all_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="three dimensions"):
        PatchBank().grow(np.ones(shape, dtype=np.int8))


def test_empty_bank_is_stored_and_read() -> None:
    bank = PatchBank.from_bytes(PatchBank().to_bytes())
    assert (len(bank), bank.ready) == (0, False)


def test_damaged_bytes_are_refused(scene: NDArray[np.float32], random: np.random.Generator) -> None:
    data = taught(scene, random).to_bytes()
    for damaged in (b"", data[:10], data[:-1], data + b"x", b"\0" + data[1:], data[40:]):
        with pytest.raises(ValueError, match="damaged"):
            PatchBank.from_bytes(damaged)
    for place in random.integers(len(data), size=200):
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(random.integers(8))
        with pytest.raises(ValueError, match="damaged"):
            PatchBank.from_bytes(bytes(flipped))


def test_parts_survive_their_file(scene: NDArray[np.float32], random: np.random.Generator) -> None:
    bank = taught(scene, random)
    bank.withhold(frame(scene, random, thing=a_thing(random), at=(4, 4)))
    parts = unpack_bank(bank.to_bytes())
    assert (parts.shape, parts.frames, parts.held_frames) == ((ROWS, COLUMNS, CHANNELS), SEEN, 1)
    assert sorted(parts.held_tiles.tolist()) == [4 * COLUMNS + column for column in (4, 5, 6)]
    assert unpack_bank(pack_bank(replace(parts, radius=0.25))).radius == 0.25
