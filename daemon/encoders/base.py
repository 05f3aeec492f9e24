"""What an encoder is and how further encoders plug in.

An encoder turns whole pictures, squeezed to its input size, into unit-length vectors. Vectors are
comparable only within one embedding space, so the space carries the hash of the weights. A
provider (entry point group `stillwatch.encoders`) knows how to build networks; it is asked to
build only in the prepare child, the one process that may import TensorFlow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from daemon.messages import ByteArray, Encoding

ENTRY_POINT_GROUP = "stillwatch.encoders"


def space_of(encoder_id: str, weights_sha256: str) -> str:
    """The embedding space: encoder id and the first 12 hex digits of the weights' SHA-256."""
    return f"{encoder_id}@{weights_sha256[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderInfo:
    """What can be said of an encoder before it is built.

    `input_size` is (height, width) in pixels. `source`: `package` (weights are installed),
    `download` (Keras fetches them) or `file`.
    """

    id: str
    description: str
    dim: int
    input_size: tuple[int, int]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A built network on its way to the converter; exists only in the prepare child.

    Either `model` (a Keras model, input float32 (n, height, width, 3)) or `flatbuffer` (a file
    that is already LiteRT) is set. The first output is the embedding; `tile_shape` names the
    (rows, columns, channels) of the output that serves as tile map. The runtime hands over
    `(x - mean) / std` of pixels 0 to 255; networks with preprocessing of their own have 0 and 1.
    """

    id: str
    weights_sha256: str
    description: str
    source: str
    mean: float = 0.0
    std: float = 1.0
    tile_shape: tuple[int, int, int] | None = None
    quantise: bool = False
    model: Any = None
    flatbuffer: bytes | None = None


class Encoder(Protocol):
    """A network at work. Not thread-safe: one thread at a time calls `encode`."""

    @property
    def id(self) -> str:
        """The id in the settings, such as `efficientnet_lite0`."""
        ...

    @property
    def space(self) -> str:
        """The embedding space of the vectors, see `space_of`."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) in pixels that pictures are squeezed to."""
        ...

    @property
    def tile_shape(self) -> tuple[int, int, int] | None:
        """(rows, columns, channels) of the tile map, None where there is none."""
        ...

    @property
    def weights_sha256(self) -> str:
        """Hex SHA-256 of the weights."""
        ...

    def encode(self, batch: ByteArray) -> Encoding:
        """Encode whole pictures, squeezed to `input_size`, never cropped.

        Args:
            batch: uint8 RGB, shape (n, height, width, 3), n at least 0.

        Returns:
            float32 vectors (n, dim) of unit length without NaN, and float32 tile maps
            (n, rows, columns, channels) or None. A degenerate network output (zero or not
            finite) becomes the fixed unit vector with equal components.

        Raises:
            ValueError: The batch has another shape or type.
        """
        ...

    def close(self) -> None:
        """Free the network's memory; `encode` must not be called afterwards."""
        ...


@runtime_checkable
class EncoderProvider(Protocol):
    """What an entry point of the group `stillwatch.encoders` refers to.

    All methods but `build` run in the daemon and the command line: they import nothing heavy.
    """

    def offers(self) -> Sequence[EncoderInfo]:
        """The encoders that can be named without a file path."""
        ...

    def handles(self, encoder_id: str) -> bool:
        """Whether this provider builds the encoder of that id."""
        ...

    def expected_sha256(self, encoder_id: str) -> str | None:
        """The weights' hash as of now, None where only building would tell."""
        ...

    def build(self, encoder_id: str) -> Network:
        """Build the network; called only in the prepare child.

        Raises:
            EncoderError: The weights are absent, damaged or not fetchable.
        """
        ...
