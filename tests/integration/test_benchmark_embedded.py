"""The benchmark's embeddings: those of the daemon, kept while the pictures are the same."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from daemon.encoders import registry
from daemon.ingest.decode_child import squeeze
from daemon.ingest.picture import decode
from tests.benchmarks.embedded import FLOAT32, embedded
from tests.ingest_tools import encoded, scene

LABELS = "path,label\na.jpg,empty\nin/b.jpg,unclear\n"


@pytest.fixture
def dev(tmp_path: Path, encoder_cache: Path) -> Path:
    """A set of three pictures, two of them labelled."""
    folder = tmp_path / "dev" / "camera"
    (folder / "in").mkdir(parents=True)
    for seed, name in enumerate(["a.jpg", "c.jpg", "in/b.jpg"]):
        (folder / name).write_bytes(encoded(scene(seed)))
    (folder / "labels.csv").write_text(LABELS)
    return tmp_path / "dev"


def test_vectors_are_those_of_the_decoder_and_the_default_encoder(
    dev: Path, tmp_path: Path, encoder_cache: Path
) -> None:
    found = embedded(dev, "camera", tmp_path / "work")
    encoder = registry.load(FLOAT32, encoder_cache, 1)
    height, width = encoder.input_size
    data = (dev / "camera" / "in" / "b.jpg").read_bytes()
    picture = decode(data, wanted=(320, 320), limit=10_000_000)
    direct = encoder.encode(squeeze(picture.rgb, height, width)[None])
    encoder.close()
    assert found.paths == ("a.jpg", "c.jpg", "in/b.jpg")
    assert found.labels.tolist() == ["empty", "", "unclear"]
    assert found.tiles.shape == (3, 14, 14, 112)
    np.testing.assert_allclose(found.vectors[2], direct.vectors[0], atol=1e-5)
    assert found.clear().paths == ("a.jpg", "c.jpg")
    np.testing.assert_array_equal(found.clear().vectors, found.vectors[:2])


def test_cache_serves_until_a_picture_changes(dev: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    first = embedded(dev, "camera", work)
    (kept,) = work.iterdir()
    made = kept.stat().st_mtime_ns
    embedded(dev, "camera", work)
    assert [file.stat().st_mtime_ns for file in work.iterdir()] == [made]
    changed = dev / "camera" / "a.jpg"
    shutil.copy(dev / "camera" / "c.jpg", changed)
    os.utime(changed, ns=(1, 1))
    again = embedded(dev, "camera", work)
    assert len(list(work.iterdir())) == 2
    np.testing.assert_array_equal(again.vectors[0], first.vectors[1])


def test_a_folder_without_pictures_or_with_a_broken_one_is_an_error(
    dev: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="No pictures in"):
        embedded(dev, "nothing", tmp_path / "work")
    (dev / "camera" / "d.jpg").write_bytes(b"no picture at all")
    with pytest.raises(ValueError, match=r"d\.jpg.*refused"):
        embedded(dev, "camera", tmp_path / "work")
