"""The default encoder at work: known outputs, shapes, the corner test, no TensorFlow."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from daemon.encoders import registry
from daemon.encoders.base import Encoder
from daemon.encoders.cache import folder_of
from daemon.encoders.litert import unit_rows
from daemon.encoders.samples import render_pictures
from daemon.messages import ByteArray
from storage.errors import EncoderNotPreparedError

REFERENCE = Path(__file__).parent.parent / "data" / "encoders" / "efficientnet_lite0.npz"

KERAS_AGAINST_ORIGINAL = """
import sys
import numpy as np
from daemon.encoders.efficientnet_lite import provider
network = provider.build("efficientnet_lite0")
reference = np.load(sys.argv[1])
pictures = reference["pictures"].repeat(4, axis=1).repeat(4, axis=2).astype(np.float32)
outputs = network.model((pictures - network.mean) / network.std, training=False)
embedding, tiles, fine = (np.asarray(output) for output in outputs)
np.testing.assert_allclose(embedding, reference["embedding"], atol=1e-4)
np.testing.assert_allclose(tiles[:, :, 6, ::8], reference["tile_column"], atol=1e-3)
np.testing.assert_allclose(np.linalg.norm(tiles, axis=-1), reference["tile_norms"], atol=1e-3)
np.testing.assert_allclose(np.linalg.norm(fine, axis=-1), reference["fine_norms"], atol=1e-3)
"""

HOT_PATH = """
import sys
from pathlib import Path
import numpy as np
from daemon.encoders import registry
registry.list_encoders(Path(sys.argv[1]))
encoder = registry.load("efficientnet_lite0", Path(sys.argv[1]), 1)
encoder.encode(np.zeros((2, *encoder.input_size, 3), np.uint8))
heavy = {"tensorflow", "keras", "sklearn", "hdbscan", "torch", "h5py", "cv2", "pydantic"}
print(sorted(heavy & sys.modules.keys()))
"""


@pytest.fixture(scope="module")
def encoder(encoder_cache: Path) -> Iterator[Encoder]:
    encoder = registry.load("efficientnet_lite0", encoder_cache, 2)
    yield encoder
    encoder.close()


@pytest.fixture(scope="module")
def pictures() -> ByteArray:
    return render_pictures(5, (224, 224), seed=1)


def test_the_rebuilt_network_equals_the_original() -> None:
    command = [sys.executable, "-c", KERAS_AGAINST_ORIGINAL, str(REFERENCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_litert_equals_the_original(encoder: Encoder) -> None:
    with np.load(REFERENCE) as reference:
        pictures = reference["pictures"].repeat(4, axis=1).repeat(4, axis=2)
        expected = unit_rows(reference["embedding"])
        tile_norms = reference["tile_norms"]
    found = encoder.encode(pictures)
    assert found.tiles is not None
    assert np.sum(found.vectors * expected, axis=1).min() >= 0.9999
    # The reference pictures must be far apart, or the line above would prove little.
    assert (expected @ expected.T)[np.triu_indices(3, 1)].max() < 0.8
    np.testing.assert_allclose(np.linalg.norm(found.tiles, axis=-1), tile_norms, rtol=1e-3)


def test_shapes_types_and_unit_length(encoder: Encoder, pictures: ByteArray) -> None:
    found = encoder.encode(pictures)
    assert found.vectors.shape == (5, 1280)
    assert found.vectors.dtype.name == "float32"
    assert found.tiles is not None
    assert found.tiles.shape == (5, 14, 14, 112)
    assert found.tiles.dtype.name == "float32"
    assert encoder.tile_shape == (14, 14, 112)
    assert found.space == encoder.space == f"efficientnet_lite0@{encoder.weights_sha256[:12]}"
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)


def test_a_vector_does_not_depend_on_its_batch(encoder: Encoder, pictures: ByteArray) -> None:
    together = encoder.encode(pictures).vectors
    alone = np.concatenate([encoder.encode(picture[np.newaxis]).vectors for picture in pictures])
    np.testing.assert_array_equal(together, alone)


def test_an_empty_batch_gives_no_rows(encoder: Encoder) -> None:
    assert encoder.encode(np.zeros((0, 224, 224, 3), np.uint8)).vectors.shape == (0, 1280)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 208), (208, 0), (208, 208)])
def test_a_mark_in_each_corner_changes_vector_and_tile(
    encoder: Encoder, pictures: ByteArray, row: int, column: int
) -> None:
    marked = pictures[:1].copy()
    marked[0, row : row + 16, column : column + 16] = (255, 0, 255)
    found = encoder.encode(np.concatenate([pictures[:1], marked]))
    assert found.tiles is not None
    # 0.5 % of the picture; rounding alone stays below 1e-6.
    assert 1 - float(found.vectors[0] @ found.vectors[1]) > 1e-4
    changed = np.linalg.norm(found.tiles[0] - found.tiles[1], axis=-1)
    assert np.unravel_index(changed.argmax(), changed.shape)[0] // 7 == row // 112
    assert np.unravel_index(changed.argmax(), changed.shape)[1] // 7 == column // 112


@pytest.mark.parametrize("level", [0, 127, 255])
def test_flat_pictures_give_finite_unit_vectors(encoder: Encoder, level: int) -> None:
    vector = encoder.encode(np.full((1, 224, 224, 3), level, np.uint8)).vectors[0]
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_degenerate_rows_become_a_fixed_unit_vector() -> None:
    rows = np.array([[0, 0, 0, 0], [np.nan, 1, 0, 0], [np.inf, 1, 0, 0], [0, 3, 4, 0]], np.float32)
    found = unit_rows(rows)
    np.testing.assert_allclose(found[:3], 0.5)
    np.testing.assert_allclose(found[3], [0, 0.6, 0.8, 0])


@pytest.mark.parametrize("shape", [(1, 224, 224), (1, 224, 225, 3), (1, 3, 224, 224)])
def test_other_shapes_are_refused(encoder: Encoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="uint8"):
        encoder.encode(np.zeros(shape, np.uint8))


def test_other_types_are_refused(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="uint8"):
        encoder.encode(np.zeros((1, 224, 224, 3), np.float32))


def test_the_hot_path_imports_nothing_heavy(encoder_cache: Path) -> None:
    command = [sys.executable, "-c", HOT_PATH, str(encoder_cache)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_flipped_byte_in_the_cache_is_refused(encoder_cache: Path, tmp_path: Path) -> None:
    source = folder_of(encoder_cache, "efficientnet_lite0")
    target = folder_of(tmp_path, "efficientnet_lite0")
    target.mkdir()
    data = bytearray((source / "model.tflite").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (target / "model.tflite").write_bytes(data)
    (target / "encoder.json").write_bytes((source / "encoder.json").read_bytes())
    assert not registry.is_prepared("efficientnet_lite0", tmp_path)
    with pytest.raises(EncoderNotPreparedError, match="damaged"):
        registry.load("efficientnet_lite0", tmp_path, 1)
