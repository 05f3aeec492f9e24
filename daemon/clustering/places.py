"""Novelty of a place in the picture: what a camera has never shown there.

A small animal hardly moves the embedding of a whole picture, but its patches are unlike anything
ever seen at that place. As in PatchCore (Roth et al., 2022) a camera keeps a coreset of mid-layer
patches, here grown online (`patches.py`). A new frame is measured tile by tile against the
patches of that tile and its eight neighbours, as a camera shakes and a car stops a little
further; its score is the mean distance of its three strangest tiles.

Why so, measured with every frame scored before it is taught (docs/adr/0008-novelty.md): three
tiles beat the strangest one alone; dividing by the usual distance of the tile or of the last
frames finds fewer pasted objects; the same tile alone takes a car one tile further for news;
patches free of position find no more and cost more than twice as much.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.bank_file import BankFile, pack_bank, unpack_bank
from daemon.clustering.patches import FIRST_RADIUS, TilePatches, unit_rows_of
from daemon.messages import FloatArray

TileMap = NDArray[np.int8]
"""int8 (rows, columns, channels): the direction of each tile's mid-layer feature."""

STRANGEST: Final = 3
"""Tiles that make the score."""
READY_FRAMES: Final = 20
"""Frames to be taught before scores can be compared: those of a young bank are all high."""
STANDING_FRAMES: Final = 20
"""Novel frames in a row after which what is strange in them belongs to the place."""


@dataclass(frozen=True, slots=True)
class PlaceScore:
    """How strange the strangest places of a frame are.

    `score`: cosine distance, 0 to 2, mean of the three strangest tiles. `tile`: the strangest
    tile as shares of the picture (x, y, width, height).
    """

    score: float
    tile: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class _Held:
    """The strangest tiles of the last novel frame, and how many such frames stood in a row."""

    tiles: NDArray[np.int64]
    directions: NDArray[np.int8]
    frames: int


class PatchBank:
    """What one camera's places have looked like, in one embedding space.

    Deterministic: the same frames in the same order give the same bank, also when it was stored
    and read in between. Not for several threads at once.
    """

    def __init__(self) -> None:
        self._patches: TilePatches | None = None
        self._frames = 0
        self._held: _Held | None = None

    def __len__(self) -> int:
        """Patches in the bank."""
        return 0 if self._patches is None else len(self._patches)

    @property
    def ready(self) -> bool:
        """Whether enough frames were taught for scores to be compared with each other."""
        return self._frames >= READY_FRAMES

    def score(self, tiles: TileMap) -> PlaceScore | None:
        """Measure a frame against what was taught so far; changes nothing.

        Args:
            tiles: int8 (rows, columns, channels).

        Returns:
            None while nothing was taught.

        Raises:
            ValueError: A map of another shape than the bank's.
        """
        if self._patches is None:
            return None
        far = self._patches.distances(self._unit(tiles))
        strangest = _strangest(far)
        rows, columns, _ = self._patches.shape
        row, column = divmod(int(strangest[0]), columns)
        tile = (column / columns, row / rows, 1 / columns, 1 / rows)
        return PlaceScore(float(far[strangest].mean()), tile)

    def grow(self, tiles: TileMap) -> None:
        """Teach a frame that is usual. Score it before, or it is measured against itself.

        Args:
            tiles: int8 (rows, columns, channels); the first map fixes the shape.

        Raises:
            ValueError: A map of another shape than the bank's, or not three-dimensional.
        """
        if self._patches is None:
            if tiles.ndim != 3 or tiles.size == 0:
                raise ValueError(f"a tile map has three dimensions, not the shape {tiles.shape}")
            self._patches = TilePatches.empty((tiles.shape[0], tiles.shape[1], tiles.shape[2]))
        unit = self._unit(tiles)
        self._patches.add(tiles.reshape(unit.shape), unit, np.ones(len(unit), dtype=bool))
        self._frames += 1
        self._held = None

    def withhold(self, tiles: TileMap) -> bool:
        """Teach of a novel frame only what is usual in it, unless its news has come to stay.

        A bird must not become usual by being looked at, so the tiles that are at least half as
        far from the bank as the score are left out; the rest of the picture goes on being
        learnt. But something new that stands at the same place for `STANDING_FRAMES` novel frames
        in a row is a part of the place: the whole frame is taught then. It stands where one of
        the three strangest tiles is less than half as far from those of the novel frame before,
        there or one tile further, as it is from the bank.

        Args:
            tiles: int8 (rows, columns, channels).

        Returns:
            True when the whole frame was taught after all.

        Raises:
            ValueError: A map of another shape than the bank's, or not three-dimensional.
        """
        if self._patches is None:
            self.grow(tiles)
            return True
        unit = self._unit(tiles)
        far = self._patches.distances(unit)
        strangest = _strangest(far)
        frames = 1
        if self._held is not None and self._stands(self._held, strangest, unit, far):
            frames += self._held.frames
        if frames >= STANDING_FRAMES:
            self.grow(tiles)
            return True
        directions = tiles.reshape(unit.shape)
        self._patches.add(directions, unit, 2 * far < far[strangest].mean())
        self._held = _Held(strangest, directions[strangest], frames)
        return False

    def to_bytes(self) -> bytes:
        """The bank as versioned, checksummed bytes (npz without pickle), about 230 kB when full."""
        patches, held = self._patches, self._held
        nothing = np.empty(0, dtype=np.int64)
        no_patch = np.empty((0, 0), dtype=np.int8)
        return pack_bank(
            BankFile(
                shape=patches.shape if patches else (0, 0, 0),
                frames=self._frames,
                radius=patches.radius if patches else FIRST_RADIUS,
                tiles=patches.tiles if patches else nothing,
                directions=patches.directions if patches else no_patch,
                held_tiles=held.tiles if held else nothing,
                held_directions=held.directions if held else no_patch,
                held_frames=held.frames if held else 0,
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "PatchBank":
        """Read what `to_bytes` wrote.

        Raises:
            ValueError: Damaged bytes, or of another version.
        """
        kept = unpack_bank(data)
        bank = cls()
        if kept.frames:
            bank._frames = kept.frames
            bank._patches = TilePatches(kept.shape, kept.tiles, kept.directions, kept.radius)
        if kept.held_frames:
            bank._held = _Held(kept.held_tiles, kept.held_directions, kept.held_frames)
        return bank

    def _unit(self, tiles: TileMap) -> FloatArray:
        """The map as (tiles, channels) float32 unit rows; a tile without direction stays zero."""
        if self._patches is None or tiles.shape != self._patches.shape:
            raise ValueError(f"a tile map of shape {tiles.shape} does not fit this camera's bank")
        return unit_rows_of(tiles.reshape(-1, tiles.shape[2]))

    def _stands(
        self, held: _Held, strangest: NDArray[np.int64], unit: FloatArray, far: FloatArray
    ) -> bool:
        columns = self._patches.shape[1] if self._patches else 1
        row, column = np.divmod(held.tiles, columns)
        new_row, new_column = np.divmod(strangest[:, None], columns)
        near = (abs(row - new_row) <= 1) & (abs(column - new_column) <= 1)
        from_held = 1 - unit[strangest] @ unit_rows_of(held.directions).T
        return bool((near & (2 * from_held < far[strangest, None])).any())


def _strangest(far: FloatArray) -> NDArray[np.int64]:
    """The `STRANGEST` farthest tiles, farthest first; equally far ones in their order."""
    return np.argsort(-far, kind="stable")[:STRANGEST].astype(np.int64)
