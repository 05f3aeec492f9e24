"""Perceptual hash and pixel digest: what they forgive, what they tell apart."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from daemon.fingerprint import perceptual_hash, pixel_digest

Picture = NDArray[np.uint8]


def scene(seed: int, height: int = 240, width: int = 320) -> Picture:
    """A smooth picture of its own for each seed."""
    small = np.random.default_rng(seed).integers(20, 220, (6, 8, 3), dtype=np.uint8)
    made = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(made, dtype=np.uint8)


def bits_apart(a: Picture, b: Picture) -> int:
    hashes = [perceptual_hash(a), perceptual_hash(b)]
    unpacked = [np.unpackbits(np.frombuffer(one or b"", dtype=np.uint8)) for one in hashes]
    return int((unpacked[0] != unpacked[1]).sum())


def test_a_hash_forgives_size_light_and_compression() -> None:
    original = scene(1)
    half = np.asarray(cv2.resize(original, None, fx=0.5, fy=0.5), dtype=np.uint8)
    brighter = np.asarray(cv2.convertScaleAbs(original, alpha=1.1), dtype=np.uint8)
    packed = cv2.imencode(".jpg", original, [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    again = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), dtype=np.uint8)
    for copy in (half, brighter, again):
        assert bits_apart(original, copy) <= 4
    assert bits_apart(original, scene(2)) > 20


@pytest.mark.parametrize("level", [0, 30, 128, 255])
def test_a_flat_picture_has_no_hash(level: int) -> None:
    flat = np.full((240, 320, 3), level, dtype=np.int16)
    noise = np.random.default_rng(level).normal(0, 6, flat.shape)
    noisy = np.clip(flat + noise, 0, 255).astype(np.uint8)
    assert perceptual_hash(flat.astype(np.uint8)) is None
    assert perceptual_hash(noisy) is None
    assert perceptual_hash(scene(level)) is not None


def test_a_digest_knows_pixels_and_shape() -> None:
    picture = scene(3)
    assert pixel_digest(picture) == pixel_digest(np.asfortranarray(picture))
    assert len(pixel_digest(picture)) == 32
    changed = picture.copy()
    changed[100, 100, 1] ^= 1
    assert pixel_digest(changed) != pixel_digest(picture)
    assert pixel_digest(picture.reshape(320, 240, 3)) != pixel_digest(picture)
