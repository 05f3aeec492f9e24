"""The vector of any picture file, made as the daemon makes it; imports the encoder's runtime."""

import os
from pathlib import Path

import numpy as np

from cli.context import Context
from daemon.encoders import registry
from daemon.ingest.decode_process import ChildFailedError, DecodeChild
from daemon.messages import ByteArray, FloatArray
from daemon.settings import Settings, default_path, load_settings
from storage.errors import EncoderMismatchError, StillwatchError, UsageError


def encode_file(
    context: Context, file: Path, *, space: str | None, encoder_id: str | None
) -> FloatArray:
    """The vector (dim,) float32 of a picture.

    Args:
        context: The invocation.
        file: The picture.
        space: Embedding space that the vector must be of; None: any.
        encoder_id: Encoder of that space; None: the one of the settings.

    Raises:
        EncoderMismatchError: The encoder has other weights than the space.
        StillwatchError: It is no usable picture.
        UsageError: It cannot be read.
    """
    settings = load_settings(
        context.config or default_path(context.state_dir), required=context.config is not None
    )
    cache = settings.encoder.cache or registry.default_cache_dir()
    encoder = registry.load(encoder_id or settings.encoder.id, cache, settings.encoder.threads)
    try:
        if space is not None and encoder.space != space:
            raise EncoderMismatchError(
                f"The frames were encoded by {space}, the encoder here is {encoder.space}.",
                hint="Compare with the settings that the daemon runs with (--config).",
            )
        pixels = _squeeze(file, encoder.input_size, settings)
        vector: FloatArray = encoder.encode(pixels[np.newaxis]).vectors[0]
        return vector
    finally:
        encoder.close()


def _squeeze(file: Path, size: tuple[int, int], settings: Settings) -> ByteArray:
    """The whole picture, upright, squeezed to (height, width): uint8 RGB, never cropped.

    Decoded as the daemon does it, in a limited process, so that one picture has one vector.
    """
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        raise UsageError(f"{file} cannot be read: {exc.strerror}.", path=str(file)) from exc
    child = DecodeChild(settings.ingest)
    try:
        answer, payload = child.ask(fd, size)
    except ChildFailedError as exc:
        raise StillwatchError(f"{file} cannot be decoded: {exc}.", path=str(file)) from exc
    finally:
        child.close()
        os.close(fd)
    refused = answer.get("refused") or answer.get("unreadable")
    if refused:
        raise StillwatchError(f"{file} is no usable picture: {refused}.", path=str(file))
    height, width = size
    pixels = np.frombuffer(payload, dtype=np.uint8, count=height * width * 3)
    return pixels.reshape(height, width, 3)
