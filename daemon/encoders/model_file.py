"""Encoders from the owner's own files: `file:/path/model.keras` and `file:/path/model.tflite`.

The network takes RGB pixels 0 to 255 (its preprocessing is inside it) and gives a vector; a further
output that is a map serves as tile map. Keras files are opened in safe mode: no code from the file.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daemon.encoders.base import EncoderInfo, Network
from daemon.encoders.cache import file_sha256
from storage.errors import EncoderError

_PREFIX = "file:"
_SUFFIXES = (".keras", ".tflite")


class ModelFileProvider:
    """Builds encoders from `.keras` and `.tflite` files."""

    def offers(self) -> Sequence[EncoderInfo]:
        """Nothing by itself: the owner names the file."""
        return []

    def handles(self, encoder_id: str) -> bool:
        """Whether the id names a file of a known kind."""
        return encoder_id.startswith(_PREFIX) and encoder_id.endswith(_SUFFIXES)

    def expected_sha256(self, encoder_id: str) -> str | None:
        """The file's hash as of now; None where the file is gone, the cache then still serves."""
        try:
            return file_sha256(_path(encoder_id))
        except OSError:
            return None

    def build(self, encoder_id: str) -> Network:
        """Read the file.

        Raises:
            EncoderError: Absent, damaged, with code in it, or no network from picture to vector.
        """
        path = _path(encoder_id)
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise EncoderError(
                f"The model file cannot be read: {exc.strerror}.", path=str(path)
            ) from exc
        keras_file = path.suffix == ".keras"
        model, tile_shape = _load_keras(path) if keras_file else (None, None)
        return Network(
            id=encoder_id,
            weights_sha256=hashlib.sha256(data).hexdigest(),
            description=f"The file {path.name}",
            source="file",
            tile_shape=tile_shape,
            model=model,
            flatbuffer=None if keras_file else data,
        )


def _path(encoder_id: str) -> Path:
    """The file an id names; relative to the working folder if not absolute."""
    return Path(encoder_id.removeprefix(_PREFIX)).expanduser()


def _load_keras(path: Path) -> tuple[Any, tuple[int, int, int] | None]:
    """Load a Keras file without running code from it; the vector becomes the first output."""
    import keras

    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as exc:  # a damaged archive raises almost anything
        raise EncoderError(
            # Keras goes on with how to run the code all the same
            f"The model file cannot be loaded: {str(exc).splitlines()[0].partition(' If you ')[0]}",
            hint="Files with Lambda layers or own classes are refused: they carry code.",
            path=str(path),
        ) from exc
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] != 3 or None in shape[1:]:
        raise EncoderError(
            f"The network must take RGB pictures of a fixed size, not {shape}.", path=str(path)
        )
    vectors = [output for output in model.outputs if len(output.shape) == 2]
    maps = [output for output in model.outputs if len(output.shape) == 4]
    if not vectors and maps:
        vectors = [keras.layers.GlobalAveragePooling2D()(maps[0])]
    if not vectors:
        raise EncoderError("The network gives neither a vector nor a map.", path=str(path))
    model = keras.Model(model.inputs, [vectors[0], *maps[:1]])
    if not maps or None in maps[0].shape[1:]:
        return model, None
    rows, columns, channels = maps[0].shape[1:]
    return model, (rows, columns, channels)


provider = ModelFileProvider()
