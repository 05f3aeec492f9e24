"""The stages encode and assign: a batch of pictures gets vectors and places in the clustering.

Nothing is written here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from daemon.messages import (
    ArrivingFrame,
    Assignment,
    CameraNovelty,
    DecodedImage,
    Encoding,
    FloatArray,
    RefusedFile,
)
from daemon.signature import quantise_tiles


class BatchEncoder(Protocol):
    """The part of an encoder that the pipeline uses."""

    def encode(self, batch: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Encoding:
        """Unit-length vectors of uint8 RGB pictures, shape (n, height, width, 3)."""
        ...


class FrameJudge(Protocol):
    """The part of the novelty judge that the pipeline uses."""

    def assign(self, frames: Sequence[ArrivingFrame]) -> Sequence[Assignment]:
        """Nearest cluster or novel, for each frame in order."""
        ...

    def learned(self, frame_ids: Sequence[int | None]) -> None:
        """The ids that the frames of the last `assign` were recorded under; None: not new."""
        ...

    def camera(self, camera_id: int) -> CameraNovelty:
        """What a camera knows, with its bank of places packed."""
        ...

    def alpha(self, camera_id: int) -> float:
        """The adaptive limit of a camera's p-values now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedFrame:
    """A decoded picture with its embedding, tile map bytes and assignment.

    `vector`: float32, shape (dim,), unit length. `tiles`: int8 bytes of shape `tile_shape`.
    """

    image: DecodedImage
    vector: FloatArray
    tiles: bytes | None
    tile_shape: list[int] | None
    assignment: Assignment


def encode_and_assign(
    encoder: BatchEncoder, judge: FrameJudge | None, images: Sequence[DecodedImage]
) -> list[EncodedFrame | RefusedFile]:
    """Encode pictures and place their frames.

    Args:
        encoder: The network.
        judge: The clustering that is served; None: there is none, the frames stay unplaced.
        images: At least one picture, of the network's size.

    Returns:
        For each picture, in order, its frame; a refusal where the vector is not finite, which
        the judge never sees.
    """
    encoding = encoder.encode(np.stack([image.pixels for image in images]))
    finite = [bool(np.isfinite(vector).all()) for vector in encoding.vectors]
    arriving = [
        ArrivingFrame(
            camera_id=image.file.camera_id,
            vector=encoding.vectors[index],
            tiles=None if encoding.tiles is None else quantise_tiles(encoding.tiles[index]),
        )
        for index, image in enumerate(images)
        if finite[index]
    ]
    placed = zip(arriving, _places(judge, arriving), strict=True)
    return [
        _encoded(image, *next(placed)) if usable else _without_vector(image)
        for image, usable in zip(images, finite, strict=True)
    ]


def _places(judge: FrameJudge | None, arriving: Sequence[ArrivingFrame]) -> Sequence[Assignment]:
    if judge is None:
        return [Assignment(cluster_id=None, novel=False)] * len(arriving)
    return judge.assign(arriving)


def _encoded(image: DecodedImage, frame: ArrivingFrame, place: Assignment) -> EncodedFrame:
    return EncodedFrame(
        image=image,
        vector=frame.vector,
        tiles=None if frame.tiles is None else frame.tiles.tobytes(),
        tile_shape=None if frame.tiles is None else list(frame.tiles.shape),
        assignment=place,
    )


def _without_vector(image: DecodedImage) -> RefusedFile:
    reason = "the encoder gives no finite vector for it"
    return RefusedFile(file=image.file, reason=reason, final=True, sha256=image.sha256)
