"""Converts a built network to LiteRT and proves that it still computes the same.

Runs only in the prepare child: TensorFlow is imported inside the functions that need it.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from daemon.encoders.base import Network
from daemon.encoders.cache import EncoderRecord, write_entry
from daemon.encoders.litert import LiteRTEncoder, Shapes, read_shapes, unit_rows
from daemon.encoders.samples import render_pictures
from daemon.messages import ByteArray, FloatArray
from storage.errors import EncoderError

Progress = Callable[[str, int, int], None]
"""Called with stage, steps done, steps in all."""

STEPS = ("build", "convert", "check", "write")
MIN_COSINE = 0.9999
MIN_COSINE_INT8 = 0.85
"""Limits for the worst of the rendered pictures; int8 reached 0.93 on others like them."""

_CALIBRATION_PICTURES, _CALIBRATION_SEED = 96, 20240611
_CHECK_PICTURES, _CHECK_SEED = 8, 20240612


def convert(network: Network, cache_dir: Path, progress: Progress) -> EncoderRecord:
    """Convert, check and cache a network.

    Args:
        network: As its provider built it.
        cache_dir: Receives the entry.
        progress: Told before each step.

    Raises:
        EncoderError: It cannot be converted, or computes something else afterwards.
        OSError: The cache cannot be written.
    """
    progress(STEPS[1], 1, len(STEPS))
    flatbuffer = network.flatbuffer or _to_flatbuffer(network)
    shapes = read_shapes(flatbuffer)
    progress(STEPS[2], 2, len(STEPS))
    record = _describe(network, flatbuffer, shapes)
    _check(network, LiteRTEncoder(record, flatbuffer, threads=2))
    progress(STEPS[3], 3, len(STEPS))
    write_entry(cache_dir, record, flatbuffer)
    return record


def _to_flatbuffer(network: Network) -> bytes:
    """Convert a Keras model, in whole numbers if asked (input and output stay float32)."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(network.model)
    if network.quantise:
        height, width = network.model.input_shape[1:3]
        pictures = render_pictures(_CALIBRATION_PICTURES, (height, width), _CALIBRATION_SEED)

        def calibration() -> Iterator[list[FloatArray]]:
            for picture in pictures:
                yield [_normalise(picture[np.newaxis], network)]

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = calibration
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    try:
        return bytes(converter.convert())
    except Exception as exc:  # the converter raises plain Exception and its own classes
        raise EncoderError(
            f"The network cannot be converted to LiteRT: {str(exc).splitlines()[0]}",
            hint="Only networks made of LiteRT's built-in operations can serve as encoders.",
        ) from exc


def _describe(network: Network, flatbuffer: bytes, shapes: Shapes) -> EncoderRecord:
    """The cache's description of the converted network."""
    from importlib.metadata import version

    given = network.flatbuffer is not None
    return EncoderRecord(
        id=network.id,
        description=network.description,
        source=network.source,
        dim=shapes.dim,
        input_size=shapes.input_size,
        tile_shape=shapes.tile_shape if given else network.tile_shape,
        mean=network.mean,
        std=network.std,
        weights_sha256=network.weights_sha256,
        model_sha256=hashlib.sha256(flatbuffer).hexdigest(),
        tensorflow_version=version("tensorflow"),
    )


def _check(network: Network, encoder: LiteRTEncoder) -> None:
    """Compare LiteRT with Keras on rendered pictures; a ready LiteRT file only has to run."""
    pictures = render_pictures(_CHECK_PICTURES, encoder.input_size, _CHECK_SEED)
    found = encoder.encode(pictures).vectors
    if network.model is None:
        return
    expected = unit_rows(_keras_vectors(network, pictures))
    worst = float(np.min(np.sum(found * expected, axis=1)))
    least = MIN_COSINE_INT8 if network.quantise else MIN_COSINE
    if not worst >= least:
        raise EncoderError(
            f"The converted network computes something else (cosine {worst:.5f} to Keras).",
            hint="This network cannot serve as an encoder.",
        )


def _keras_vectors(network: Network, pictures: ByteArray) -> FloatArray:
    """The embeddings that Keras computes, float32 (n, dim)."""
    outputs: Any = network.model(_normalise(pictures, network), training=False)
    vectors = outputs[0] if isinstance(outputs, list | tuple) else outputs
    return np.asarray(vectors, np.float32)


def _normalise(pictures: ByteArray, network: Network) -> FloatArray:
    """Pixels as the runtime will hand them over, float32."""
    return (pictures.astype(np.float32) - np.float32(network.mean)) / np.float32(network.std)
