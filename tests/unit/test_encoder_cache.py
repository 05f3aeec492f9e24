"""The cache of converted networks: doubt means "not prepared"."""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.encoders import cache, registry
from daemon.encoders.cache import EncoderRecord, checked_model, folder_of, write_entry
from storage.errors import EncoderNotPreparedError, UsageError

NETWORK = b"network" * 100
RECORD = EncoderRecord(
    id="efficientnet_lite0",
    description="a test",
    source="package",
    dim=4,
    input_size=(8, 16),
    tile_shape=(2, 2, 3),
    mean=127.0,
    std=128.0,
    weights_sha256="ab" * 32,
    model_sha256=hashlib.sha256(NETWORK).hexdigest(),
    tensorflow_version="2",
)


def test_an_entry_comes_back_as_it_was(tmp_path: Path) -> None:
    write_entry(tmp_path, RECORD, NETWORK)
    record, model = checked_model(tmp_path, RECORD.id, RECORD.weights_sha256)
    assert record == RECORD
    assert model.read_bytes() == NETWORK
    assert record.space == "efficientnet_lite0@abababababab"
    assert sorted(p.name for p in model.parent.iterdir()) == ["encoder.json", "model.tflite"]


def test_one_flipped_bit_is_refused(tmp_path: Path) -> None:
    write_entry(tmp_path, RECORD, NETWORK)
    model = folder_of(tmp_path, RECORD.id) / "model.tflite"
    data = bytearray(NETWORK)
    data[350] ^= 1
    model.write_bytes(data)
    with pytest.raises(EncoderNotPreparedError, match="damaged"):
        checked_model(tmp_path, RECORD.id, None)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    write_entry(tmp_path, RECORD, NETWORK)
    with pytest.raises(EncoderNotPreparedError, match="other weights"):
        checked_model(tmp_path, RECORD.id, "cd" * 32)


@pytest.mark.parametrize("change", [{"recipe": 0}, {"input_size": [8]}, {"preprocessing": None}])
def test_an_outdated_or_damaged_description_counts_as_absent(
    tmp_path: Path, change: dict[str, object]
) -> None:
    write_entry(tmp_path, RECORD, NETWORK)
    path = folder_of(tmp_path, RECORD.id) / "encoder.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(EncoderNotPreparedError, match="not prepared yet"):
        checked_model(tmp_path, RECORD.id, None)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_description_that_is_no_object_counts_as_absent(tmp_path: Path, text: str) -> None:
    write_entry(tmp_path, RECORD, NETWORK)
    (folder_of(tmp_path, RECORD.id) / "encoder.json").write_text(text)
    assert cache.all_records(tmp_path) == []


def test_a_missing_network_is_refused(tmp_path: Path) -> None:
    write_entry(tmp_path, RECORD, NETWORK)
    (folder_of(tmp_path, RECORD.id) / "model.tflite").unlink()
    with pytest.raises(EncoderNotPreparedError, match="damaged"):
        checked_model(tmp_path, RECORD.id, None)


def test_folders_stay_inside_the_cache_and_never_collide(tmp_path: Path) -> None:
    ids = ["keras:VGG16", "keras_VGG16", "file:/a/b.keras", "file:/a_b.keras", "..", "../x", "ä"]
    folders = {folder_of(tmp_path, encoder_id) for encoder_id in ids}
    assert len(folders) == len(ids)
    assert all(folder.resolve().parent == tmp_path.resolve() for folder in folders)


def test_the_default_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLWATCH_CACHE", str(tmp_path / "chosen"))
    assert registry.default_cache_dir() == tmp_path / "chosen"
    monkeypatch.delenv("STILLWATCH_CACHE")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    shared = tmp_path / "prefix" / "share" / "stillwatch" / "encoders"
    assert registry.default_cache_dir() == shared
    monkeypatch.setattr(cache, "_writable", lambda folder: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert registry.default_cache_dir() == tmp_path / "user" / "stillwatch" / "encoders"
    write_entry(shared, RECORD, NETWORK)
    assert registry.default_cache_dir() == shared


def test_the_list_names_the_default_first_and_what_files_added(tmp_path: Path) -> None:
    write_entry(tmp_path, replace(RECORD, id="file:/gone/mine.tflite", source="file"), NETWORK)
    statuses = {status.info.id: status for status in registry.list_encoders(tmp_path)}
    assert next(iter(statuses)) == "efficientnet_lite0"
    assert {"efficientnet_lite0_int8", "keras:VGG16"} <= statuses.keys()
    assert not statuses["efficientnet_lite0"].prepared
    assert statuses["efficientnet_lite0"].space is None
    mine = statuses["file:/gone/mine.tflite"]
    assert (mine.prepared, mine.space) == (True, "file:/gone/mine.tflite@abababababab")


def test_the_default_encoder_prepared_from_other_weights_is_not_prepared(tmp_path: Path) -> None:
    write_entry(tmp_path, RECORD, NETWORK)
    assert not registry.is_prepared("efficientnet_lite0", tmp_path)


@pytest.mark.parametrize("encoder_id", ["", "efficientnet", "keras:Nope", "file:/x.h5", "onnx:x"])
def test_an_unknown_encoder_is_wrong_usage(tmp_path: Path, encoder_id: str) -> None:
    with pytest.raises(UsageError, match="no encoder"):
        registry.load(encoder_id, tmp_path, 1)
