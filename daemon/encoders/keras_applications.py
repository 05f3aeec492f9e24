"""The networks of `keras.applications` as encoders: `keras:VGG16`, `keras:VGG16:/path/weights.h5`.

Without a path Keras downloads the ImageNet weights, which needs a network once; a path names the
file without the top layers that Keras publishes (`..._notop.h5`). The embedding is the average of
the last map; preprocessing is the network's own and becomes part of the converted graph.
"""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daemon.encoders.base import EncoderInfo, Network
from daemon.encoders.cache import file_sha256
from storage.errors import EncoderError

_PREFIX = "keras:"

# name: (side of the square input in pixels, length of the vector), as Keras 3.15 builds them.
_NETWORKS = {
    "ConvNeXtBase": (224, 1024),
    "ConvNeXtLarge": (224, 1536),
    "ConvNeXtSmall": (224, 768),
    "ConvNeXtTiny": (224, 768),
    "ConvNeXtXLarge": (224, 2048),
    "DenseNet121": (224, 1024),
    "DenseNet169": (224, 1664),
    "DenseNet201": (224, 1920),
    "EfficientNetB0": (224, 1280),
    "EfficientNetB1": (240, 1280),
    "EfficientNetB2": (260, 1408),
    "EfficientNetB3": (300, 1536),
    "EfficientNetB4": (380, 1792),
    "EfficientNetB5": (456, 2048),
    "EfficientNetB6": (528, 2304),
    "EfficientNetB7": (600, 2560),
    "EfficientNetV2B0": (224, 1280),
    "EfficientNetV2B1": (240, 1280),
    "EfficientNetV2B2": (260, 1408),
    "EfficientNetV2B3": (300, 1536),
    "EfficientNetV2L": (480, 1280),
    "EfficientNetV2M": (480, 1280),
    "EfficientNetV2S": (384, 1280),
    "InceptionResNetV2": (299, 1536),
    "InceptionV3": (299, 2048),
    "MobileNet": (224, 1024),
    "MobileNetV2": (224, 1280),
    "MobileNetV3Large": (224, 960),
    "MobileNetV3Small": (224, 576),
    "NASNetLarge": (331, 4032),
    "NASNetMobile": (224, 1056),
    "ResNet101": (224, 2048),
    "ResNet101V2": (224, 2048),
    "ResNet152": (224, 2048),
    "ResNet152V2": (224, 2048),
    "ResNet50": (224, 2048),
    "ResNet50V2": (224, 2048),
    "VGG16": (224, 512),
    "VGG19": (224, 512),
    "Xception": (299, 2048),
}


class KerasApplicationsProvider:
    """Builds the networks of `keras.applications` without their classifier."""

    def offers(self) -> Sequence[EncoderInfo]:
        """One encoder a network, weights by download."""
        return [
            EncoderInfo(
                id=f"{_PREFIX}{name}",
                description=f"{name} of keras.applications, ImageNet weights",
                dim=dim,
                input_size=(side, side),
                source="download",
            )
            for name, (side, dim) in _NETWORKS.items()
        ]

    def handles(self, encoder_id: str) -> bool:
        """Whether the id is `keras:NAME` or `keras:NAME:PATH` of a known network."""
        return encoder_id.startswith(_PREFIX) and _split(encoder_id)[0] in _NETWORKS

    def expected_sha256(self, encoder_id: str) -> str | None:
        """The hash of the named weights file; None for downloads and where the file is gone."""
        path = _split(encoder_id)[1]
        try:
            return None if path is None else file_sha256(path)
        except OSError:
            return None

    def build(self, encoder_id: str) -> Network:
        """Build the network with its weights.

        Raises:
            EncoderError: The file is absent or of another network, or the download failed.
        """
        name, path = _split(encoder_id)
        if path is not None and not path.is_file():
            raise EncoderError("The weights file does not exist.", path=str(path))
        model = _with_preprocessing(name, path)
        return Network(
            id=encoder_id,
            weights_sha256=file_sha256(path) if path is not None else _arrays_sha256(model),
            description=f"{name} of keras.applications, weights from {path or 'Keras'}",
            source="download" if path is None else "file",
            model=model,
        )


def _split(encoder_id: str) -> tuple[str, Path | None]:
    """The network's name, and the weights file if the id names one."""
    name, _, path = encoder_id.removeprefix(_PREFIX).partition(":")
    return name, Path(path).expanduser() if path else None


def _with_preprocessing(name: str, weights: Path | None) -> Any:
    """Keras model from pixels 0 to 255 to the vector, with the network's own preprocessing."""
    import keras

    side = _NETWORKS[name][0]
    function = getattr(keras.applications, name)
    preprocess = sys.modules[function.__module__].preprocess_input
    inputs = keras.Input((side, side, 3))
    try:
        network = function(
            include_top=False,
            pooling="avg",
            input_shape=(side, side, 3),
            weights="imagenet" if weights is None else str(weights),
        )
    except Exception as exc:  # downloading and HDF5 raise almost anything
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        if weights is not None:
            raise EncoderError(
                f"The weights file does not fit {name}: {reason}",
                hint="It must be the file without the top layers (..._notop.h5) of that network.",
                path=str(weights),
            ) from exc
        raise EncoderError(
            f"Keras could not download the weights of {name}: {reason}",
            hint=f"Without a network, fetch the ..._notop.h5 file elsewhere and name it: "
            f"{_PREFIX}{name}:/path/to/weights.h5",
        ) from exc
    return keras.Model(inputs, network(preprocess(inputs)))


def _arrays_sha256(model: Any) -> str:
    """Hex SHA-256 over all weights in order, for weights that came without a file of their own."""
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(str(array.shape).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


provider = KerasApplicationsProvider()
