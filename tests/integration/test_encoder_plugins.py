"""Further encoders through the same door: Keras networks, the owner's files, whole numbers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from daemon.encoders import registry
from daemon.encoders.cache import folder_of
from daemon.encoders.samples import render_pictures
from storage.errors import EncoderError, UsageError

MAKE_FILES = """
import sys
from pathlib import Path
import keras
import tensorflow as tf
folder = Path(sys.argv[1])
keras.utils.set_random_seed(5)
inputs = keras.Input((32, 48, 3))
x = keras.layers.Rescaling(1 / 255)(inputs)
tiles = keras.layers.Conv2D(5, 3, 8, padding="same", activation="relu")(x)
vector = keras.layers.GlobalAveragePooling2D()(tiles)
model = keras.Model(inputs, [vector, tiles])
model.save(folder / "good.keras")
(folder / "good.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
code = keras.Sequential([keras.Input((32, 48, 3)), keras.layers.Lambda(lambda x: x[:, 0, 0])])
code.save(folder / "code.keras")
network = keras.applications.MobileNetV2(weights=None, include_top=False, pooling="avg")
network.save_weights(folder / "mobile.weights.h5")
"""

COMPARE = """
import sys
import keras
import numpy as np
found = np.load(sys.argv[1])
network = keras.applications.MobileNetV2(
    weights=sys.argv[2], include_top=False, pooling="avg", input_shape=(224, 224, 3)
)
prepared = keras.applications.mobilenet_v2.preprocess_input(found["pictures"].astype("float32"))
def cosine(pictures):
    vectors = np.asarray(network(pictures, training=False))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.sum(unit * found["vectors"], axis=1).min()

assert cosine(prepared) >= 0.9999
assert cosine(found["pictures"].astype("float32")) < 0.99  # preprocessing matters here
"""


def silent(stage: str, done: int, total: int) -> None:
    """Progress nobody looks at."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small model files, made by Keras in a process of its own."""
    folder = tmp_path_factory.mktemp("models")
    command = [sys.executable, "-c", MAKE_FILES, str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", ["good.keras", "good.tflite"])
def test_a_model_file_becomes_an_encoder(files: Path, tmp_path: Path, name: str) -> None:
    encoder_id = f"file:{files / name}"
    stages: list[tuple[str, int, int]] = []
    registry.prepare(encoder_id, tmp_path, lambda *step: stages.append(step))
    assert [stage for stage, _, _ in stages] == ["build", "convert", "check", "write", "ready"]
    assert [done for _, done, _ in stages] == [0, 1, 2, 3, 4]
    encoder = registry.load(encoder_id, tmp_path, 1)
    assert (encoder.input_size, encoder.dim, encoder.tile_shape) == ((32, 48), 5, (4, 6, 5))
    pictures = render_pictures(3, (32, 48), seed=2)
    found = encoder.encode(pictures)
    assert found.tiles is not None
    pooled = found.tiles.mean((1, 2))
    cosine = np.sum(found.vectors * pooled, axis=1) / np.linalg.norm(pooled, axis=1)
    np.testing.assert_allclose(cosine, 1, atol=1e-5)


def test_a_changed_model_file_is_another_encoder(files: Path, tmp_path: Path) -> None:
    model = tmp_path / "mine.tflite"
    model.write_bytes((files / "good.tflite").read_bytes())
    registry.prepare(f"file:{model}", tmp_path / "cache", silent)
    model.write_bytes((files / "good.tflite").read_bytes() + b"\0" * 16)
    assert not registry.is_prepared(f"file:{model}", tmp_path / "cache")
    model.unlink()
    assert registry.is_prepared(f"file:{model}", tmp_path / "cache")


def test_a_model_file_with_code_is_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="cannot be loaded") as caught:
        registry.prepare(f"file:{files / 'code.keras'}", tmp_path, silent)
    assert "Lambda" in caught.value.hint


def test_no_model_file_runs_code_and_each_refusal_has_a_reason(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.tools.malicious_models", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("good") is None
    assert len(found) == 11
    for name, reason in found.items():
        assert str(reason).startswith("The model file cannot be loaded: "), (name, reason)
        assert "If you trust" not in reason


@pytest.mark.parametrize(
    "name", ["a.h5", "a.hdf5", "saved_model", "a.pkl", "a.pt", "a.onnx", "a.py"]
)
def test_other_kinds_of_model_files_are_no_encoders(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(UsageError, match="no encoder"):
        registry.prepare(f"file:{tmp_path / name}", tmp_path / "cache", silent)


@pytest.mark.parametrize("name", ["broken.keras", "broken.tflite"])
def test_a_file_that_is_no_network_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no network at all")
    with pytest.raises(EncoderError, match=r"cannot be loaded|can be run"):
        registry.prepare(f"file:{tmp_path / name}", tmp_path / "cache", silent)
    assert not folder_of(tmp_path / "cache", f"file:{tmp_path / name}").exists()


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="cannot be read") as caught:
        registry.prepare(f"file:{tmp_path / 'none.keras'}", tmp_path, silent)
    assert caught.value.path == str(tmp_path / "none.keras")


@pytest.mark.slow
def test_a_keras_network_from_local_weights(files: Path, tmp_path: Path) -> None:
    weights = files / "mobile.weights.h5"
    encoder_id = f"keras:MobileNetV2:{weights}"
    registry.prepare(encoder_id, tmp_path, silent)
    encoder = registry.load(encoder_id, tmp_path, 2)
    assert (encoder.input_size, encoder.dim, encoder.tile_shape) == ((224, 224), 1280, None)
    pictures = render_pictures(3, (224, 224), seed=3)
    result = tmp_path / "found.npz"
    np.savez(result, pictures=pictures, vectors=encoder.encode(pictures).vectors)
    command = [sys.executable, "-c", COMPARE, str(result), str(weights)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_weights_of_another_network_are_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="does not fit MobileNet:"):
        registry.prepare(f"keras:MobileNet:{files / 'mobile.weights.h5'}", tmp_path, silent)


def test_without_a_network_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(EncoderError, match="could not download the weights of VGG16") as caught:
        registry.prepare("keras:VGG16", tmp_path / "cache", silent)
    assert "keras:VGG16:/path/to/weights.h5" in caught.value.hint


@pytest.mark.slow
def test_whole_numbers_stay_near_the_default(encoder_cache: Path, tmp_path: Path) -> None:
    registry.prepare("efficientnet_lite0_int8", tmp_path, silent)
    exact = registry.load("efficientnet_lite0", encoder_cache, 2)
    coarse = registry.load("efficientnet_lite0_int8", tmp_path, 2)
    pictures = render_pictures(12, exact.input_size, seed=4)
    cosine = np.sum(exact.encode(pictures).vectors * coarse.encode(pictures).vectors, axis=1)
    assert cosine.min() > 0.85
    assert cosine.max() < 0.99999  # really another network
    assert exact.space != coarse.space


def test_a_cache_that_cannot_be_written_is_named(files: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EncoderError, match="Not a directory"):
        registry.prepare(f"file:{files / 'good.tflite'}", tmp_path / "file" / "cache", silent)
