"""Copies in an archive: found across every kind of change, never by a chain, never across pictures.

Vectors and hashes are made by hand, so that each test says how far apart two pictures are.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from daemon.dedup.archive import BLOCK, Copy, find_copies
from daemon.dedup.copy_rule import ArchivePictures

DIM = 32


def vector(cosine: float, axis: int = 1) -> NDArray[np.float32]:
    """A unit vector with this cosine to the first axis."""
    made = np.zeros(DIM, dtype=np.float32)
    made[0], made[axis] = cosine, np.sqrt(1 - cosine**2)
    return made


def bits(*flipped: int) -> NDArray[np.uint8]:
    """A hash that differs from the all-zero one in these bits."""
    made = np.zeros(64, dtype=np.uint8)
    made[list(flipped)] = 1
    return np.packbits(made)


def archive(
    rows: Sequence[tuple[NDArray[np.float32], NDArray[np.uint8]]], rank: Sequence[int] | None = None
) -> ArchivePictures:
    """Pictures f1, f2, ... in the order of preference, by vector and hash; 640 x 480."""
    count = len(rows)
    return ArchivePictures(
        ids=np.arange(1, count + 1),
        rank=np.arange(count) if rank is None else np.array(rank),
        vectors=np.stack([one for one, _ in rows]),
        hashes=np.stack([one for _, one in rows]),
        featureless=np.zeros(count, dtype=bool),
        digests=[hashlib.sha256(str(number).encode()).digest() for number in range(count)],
        sizes=np.tile([640, 480], (count, 1)),
    )


def keepers(copies: Sequence[Copy]) -> dict[int, int]:
    return {copy.frame_id: copy.keeper_id for copy in copies}


def test_each_step_of_the_rule_needs_both_signs() -> None:
    original = (vector(1.0), bits())
    pairs = {
        "noise: hash the same, vector moved": (vector(0.70, 2), bits(1, 2), True),
        "overlay": (vector(0.86, 3), bits(*range(10)), True),
        "turn and crop": (vector(0.92, 4), bits(*range(20)), True),
        "another picture of one kind": (vector(0.92, 5), bits(*range(22)), False),
        "alike in outline only": (vector(0.60, 6), bits(1, 2), False),
        "alike in outline, likely another": (vector(0.84, 7), bits(*range(10)), False),
        "somewhat alike in both": (vector(0.89, 8), bits(*range(12)), False),
    }
    for name, (direction, differing, expected) in pairs.items():
        found = find_copies(archive([original, (direction, differing)]))
        assert keepers(found) == ({2: 1} if expected else {}), name


def test_there_are_no_chains() -> None:
    """f2 is a copy of f1 and f3 of f2, but f3 does not pass against f1: it is kept."""
    near, far = vector(0.95), vector(0.80)
    assert near @ far > 0.92
    found = find_copies(archive([(vector(1.0), bits()), (near, bits(*range(8))), (far, bits(1))]))
    assert keepers(found) == {2: 1, 3: 1}  # by its hash f3 does pass
    far_bits = bits(*range(12))
    found = find_copies(archive([(vector(1.0), bits()), (near, bits(*range(8))), (far, far_bits)]))
    assert keepers(found) == {2: 1}


def test_an_equally_welcome_picture_takes_over_when_it_stands_for_more() -> None:
    """As a noisy file that is the largest of its size, but resembles the others least."""
    middle = vector(0.95)
    rows = [(vector(1.0), bits()), (middle, bits(*range(8))), (vector(0.80), bits(*range(12)))]
    assert keepers(find_copies(archive(rows, rank=[0, 0, 0]))) == {1: 2, 3: 2}
    assert keepers(find_copies(archive(rows, rank=[0, 1, 1]))) == {2: 1}, "a smaller picture"
    stays = np.array([True, False, False])
    assert keepers(find_copies(archive(rows, rank=[0, 0, 0]), stay=stays)) == {2: 1}
    apart = frozenset([frozenset((1, 2))])
    assert keepers(find_copies(archive(rows, rank=[0, 0, 0]), apart=apart)) == {3: 2}


def test_featureless_pictures_are_copies_only_pixel_by_pixel() -> None:
    pictures = archive([(vector(1.0), bits())] * 3)
    flat = replace(pictures, featureless=np.ones(3, dtype=bool))
    assert find_copies(flat) == []
    same = replace(flat, digests=[flat.digests[0], flat.digests[1], flat.digests[0]])
    (found,) = find_copies(same)
    assert (found.frame_id, found.keeper_id) == (3, 1)
    assert "same pixels as f1" in found.reason
    assert "EXIF" in found.reason
    half = replace(pictures, featureless=np.array([True, False, False]))
    assert keepers(find_copies(half)) == {3: 2}


def test_equal_pixels_of_a_removed_picture_go_to_the_one_that_is_kept() -> None:
    rows = [(vector(1.0), bits()), (vector(0.95), bits(1)), (vector(0.95), bits(1))]
    pictures = archive(rows)
    pictures = replace(pictures, digests=[*pictures.digests[:2], pictures.digests[1]])
    assert keepers(find_copies(pictures)) == {2: 1, 3: 1}


def test_words_and_applied_verdicts_stand() -> None:
    pictures = archive([(vector(1.0), bits())] * 3)
    assert keepers(find_copies(pictures)) == {2: 1, 3: 1}
    assert keepers(find_copies(pictures, stay=np.array([False, True, False]))) == {3: 1}
    apart = frozenset([frozenset((1, 3))])
    assert keepers(find_copies(pictures, apart=apart)) == {2: 1}
    twins = replace(pictures, digests=[pictures.digests[0]] * 3)
    assert keepers(find_copies(twins, apart=apart)) == {2: 1}


def test_the_reason_tells_what_was_done() -> None:
    pictures = archive([(vector(1.0), bits()), (vector(0.98), bits(1, 2, 3, 4))])
    (found,) = find_copies(pictures)
    assert found.reason == "re-encoded copy of f1: cosine 0.98, perceptual hash 4 of 64 bits apart"
    smaller = replace(pictures, sizes=np.array([[640, 480], [320, 240]]))
    assert find_copies(smaller)[0].reason.startswith("resized (320 x 240 of 640 x 480) copy of f1:")
    cut = replace(pictures, sizes=np.array([[640, 480], [600, 480]]))
    assert find_copies(cut)[0].reason.startswith("altered (cropped, turned, written on or ")
    written = archive([(vector(1.0), bits()), (vector(0.98), bits(*range(6)))])
    assert find_copies(written)[0].reason.startswith("altered (cropped, turned, written on or ")


def test_many_pictures_over_several_blocks() -> None:
    """Every copy finds its original, wherever both stand; the order of the rest changes nothing."""
    rng = np.random.default_rng(5)
    originals = 2 * BLOCK
    base = rng.standard_normal((originals, 256)).astype(np.float32)
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    signs = rng.integers(0, 2, (originals, 64), dtype=np.uint8)
    of = np.concatenate([np.arange(originals), rng.integers(0, originals, originals)])
    noise = rng.standard_normal((len(of), 256)).astype(np.float32) * 0.01
    noise[:originals] = 0
    vectors = base[of] + noise
    flips = signs[of]
    flips[np.arange(originals, len(of)), rng.integers(0, 64, originals)] ^= 1
    pictures = ArchivePictures(
        ids=np.arange(len(of)),
        rank=np.arange(len(of)),
        vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        hashes=np.packbits(flips, axis=1),
        featureless=np.zeros(len(of), dtype=bool),
        digests=[str(number).encode() for number in range(len(of))],
        sizes=np.ones((len(of), 2), dtype=np.int64),
    )
    seen: list[int] = []
    found = keepers(find_copies(pictures, progress=seen.append))
    assert found == {number: int(of[number]) for number in range(originals, len(of))}
    assert seen == [BLOCK, 2 * BLOCK, 3 * BLOCK, 4 * BLOCK]


def test_no_pictures() -> None:
    empty = archive([(vector(1.0), bits())])
    empty = replace(
        empty,
        ids=empty.ids[:0],
        rank=empty.rank[:0],
        vectors=empty.vectors[:0],
        hashes=empty.hashes[:0],
        featureless=empty.featureless[:0],
        digests=[],
        sizes=empty.sizes[:0],
    )
    assert find_copies(empty) == []
