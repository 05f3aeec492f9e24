"""The restricted reader of PyTorch weights: arrays come out, nothing else is ever called."""

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from daemon.encoders.efficientnet_lite import WEIGHTS_SHA256, weights_path
from daemon.encoders.weights_reader import read_arrays
from storage.errors import EncoderError

HEAD = b"".join(
    pickle.dumps(part, protocol=2)
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
)


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def tensor(offset: int, shape: tuple[int, int], strides: tuple[int, int]) -> bytes:
    """Opcodes of a dictionary with one tensor "a" over a storage of six floats."""
    numbers = [b"K" + bytes([n]) for n in (offset, *shape, *strides)]
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("7") + text("cpu")
    storage += b"K\x06NtQ"
    return (
        b"\x80\x02}" + text("a") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + numbers[0]
        + b"(" + numbers[1] + numbers[2] + b"t(" + numbers[3] + numbers[4] + b"t\x89}tRs."
    )  # fmt: skip


def write(folder: Path, tensors: bytes, numbers: int = 6) -> tuple[Path, str]:
    """A file of the old format, and its SHA-256."""
    raw = np.arange(numbers, dtype="<f4").tobytes()
    data = HEAD + tensors + pickle.dumps(["7"], protocol=2) + (6).to_bytes(8, "little") + raw
    path = folder / "weights.pth"
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


def test_the_real_weights_are_read_whole() -> None:
    arrays = read_arrays(weights_path(), WEIGHTS_SHA256)
    trained = {name: a for name, a in arrays.items() if not name.endswith("num_batches_tracked")}
    assert trained["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert trained["_fc.weight"].shape == (1000, 1280)
    # 4.65 million parameters as published, and the statistics of the batch normalisations.
    learnt = sum(a.size for name, a in trained.items() if ".running_" not in name)
    assert learnt == 4_652_008
    assert all(np.isfinite(a).all() for a in trained.values())


def test_strides_are_followed(tmp_path: Path) -> None:
    arrays = read_arrays(*write(tmp_path, tensor(0, (2, 3), (1, 2))))
    np.testing.assert_array_equal(arrays["a"], [[0, 2, 4], [1, 3, 5]])


@pytest.mark.parametrize(
    ("offset", "shape", "strides"), [(0, (2, 4), (3, 1)), (1, (2, 3), (3, 1)), (0, (2, 2), (5, 1))]
)
def test_an_array_beyond_its_storage_is_refused(
    tmp_path: Path, offset: int, shape: tuple[int, int], strides: tuple[int, int]
) -> None:
    with pytest.raises(EncoderError, match="beyond its storage"):
        read_arrays(*write(tmp_path, tensor(offset, shape, strides)))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="ends early"):
        read_arrays(*write(tmp_path, tensor(0, (2, 3), (3, 1)), numbers=5))


@pytest.mark.parametrize(
    "call", [b"cposix\nsystem\n", b"cbuiltins\neval\n", b"ctorch\nload\n", b"cnumpy\nload\n"]
)
def test_a_pickle_that_calls_something_is_refused(tmp_path: Path, call: bytes) -> None:
    mark = tmp_path / "mark"
    attack = b"\x80\x02" + call + b"(" + text(f"touch {mark}") + b"tR."
    with pytest.raises(EncoderError, match="only arrays are admitted"):
        read_arrays(*write(tmp_path, attack))
    assert not mark.exists()


def test_the_attack_would_work_on_plain_pickle(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    name = os.system.__module__
    pickle.loads(f"\x80\x02c{name}\nsystem\n(".encode("latin1") + text(f"touch {mark}") + b"tR.")
    assert mark.exists()


def test_another_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path, _ = write(tmp_path, tensor(0, (2, 3), (3, 1)))
    with pytest.raises(EncoderError, match="not the expected one"):
        read_arrays(path, WEIGHTS_SHA256)


def test_an_absent_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="No such file"):
        read_arrays(tmp_path / "none.pth", WEIGHTS_SHA256)
