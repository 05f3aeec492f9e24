"""A camera's patch bank as bytes: an npz without pickle behind a version and a checksum."""

from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAGIC: Final = b"stillwatch places 1\n"
"""Name and version of the layout; a reader refuses every other."""
_BODY: Final = len(MAGIC) + sha256().digest_size


@dataclass(frozen=True, slots=True, kw_only=True)
class BankFile:
    """What is kept of a bank.

    `shape`: (rows, columns, channels) of the tile maps, zeros for an empty bank. `tiles` (n,)
    int64 ascending, the tile each patch belongs to; `directions` (n, channels) int8, of one tile
    in order of arrival. `held_tiles`, `held_directions`: the strangest tiles of the last novel
    frame, which have stood there for `held_frames` such frames in a row.
    """

    shape: tuple[int, int, int]
    frames: int
    radius: float
    tiles: NDArray[np.int64]
    directions: NDArray[np.int8]
    held_tiles: NDArray[np.int64]
    held_directions: NDArray[np.int8]
    held_frames: int


def pack_bank(bank: BankFile) -> bytes:
    """Bytes of a bank: magic, SHA-256 of the rest, npz."""
    body = BytesIO()
    np.savez(
        body,
        counts=np.array([*bank.shape, bank.frames, bank.held_frames], dtype=np.int64),
        radius=np.array([bank.radius], dtype=np.float64),
        tiles=bank.tiles.astype(np.uint32),
        directions=bank.directions,
        held_tiles=bank.held_tiles.astype(np.uint32),
        held_directions=bank.held_directions,
    )
    return MAGIC + sha256(body.getvalue()).digest() + body.getvalue()


def unpack_bank(data: bytes) -> BankFile:
    """Read `pack_bank` bytes.

    Raises:
        ValueError: Damaged bytes, or of another version.
    """
    magic, digest, body = data[: len(MAGIC)], data[len(MAGIC) : _BODY], data[_BODY:]
    if magic != MAGIC or sha256(body).digest() != digest:
        raise ValueError("a stored patch bank is damaged, or of another version")
    with np.load(BytesIO(body), allow_pickle=False) as parts:
        rows, columns, channels, frames, held_frames = map(int, parts["counts"])
        return BankFile(
            shape=(rows, columns, channels),
            frames=frames,
            radius=float(parts["radius"][0]),
            tiles=parts["tiles"].astype(np.int64),
            directions=parts["directions"],
            held_tiles=parts["held_tiles"].astype(np.int64),
            held_directions=parts["held_directions"],
            held_frames=held_frames,
        )
