"""Descriptors from files: what is taken, and what every other file is told."""

import gzip
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.clustering import descriptor_rows
from daemon.clustering.descriptor_rows import find_bad_rows, write_rows
from daemon.clustering.descriptors_file import Descriptors, open_descriptors
from storage.errors import DiskFullError, UsageError

ROWS = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (os.mkdir, (str(self.target),))


def opened(path: Path, scratch: Path, key: str | None = None) -> Descriptors:
    scratch.mkdir(exist_ok=True)
    return open_descriptors(path, key, scratch)


def refused(path: Path, key: str | None = None) -> UsageError:
    """The error that a file meets; it names the file."""
    with pytest.raises(UsageError) as caught:
        opened(path, path.parent / "scratch", key)
    assert caught.value.path == str(path)
    assert str(path) in caught.value.summary
    return caught.value


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", "i1", "u1", "<i8"])
def test_every_real_dtype_is_mapped(tmp_path: Path, dtype: str) -> None:
    rows = (ROWS * 20).astype(dtype)
    np.save(tmp_path / "rows.npy", rows)
    found = opened(tmp_path / "rows.npy", tmp_path / "scratch")
    assert found.path == tmp_path / "rows.npy"
    assert isinstance(found.vectors, np.memmap)
    assert not found.vectors.flags.writeable
    assert np.array_equal(found.vectors, rows)
    assert not list((tmp_path / "scratch").iterdir())


def test_the_extension_does_not_matter(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    (tmp_path / "rows.npy").rename(tmp_path / "rows.data")
    assert np.array_equal(opened(tmp_path / "rows.data", tmp_path / "scratch").vectors, ROWS)


def test_columns_are_turned_into_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptor_rows, "BLOCK_BYTES", 4 * 6 * 7)  # blocks of seven rows
    np.save(tmp_path / "rows.npy", np.asfortranarray(ROWS))
    found = opened(tmp_path / "rows.npy", tmp_path / "scratch")
    assert found.path.parent == tmp_path / "scratch"
    assert found.vectors.flags.c_contiguous
    assert np.array_equal(found.vectors, ROWS)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "one.npz", ROWS)
    found = opened(tmp_path / "one.npz", tmp_path / "scratch")
    assert found.key == "arr_0"
    assert isinstance(found.vectors, np.memmap)
    assert np.array_equal(found.vectors, ROWS)


def test_the_only_suitable_array_of_an_archive(tmp_path: Path) -> None:
    names = np.array(["a.jpg", None], dtype=object)
    np.savez(tmp_path / "x.npz", names=names, tiles=np.zeros((20, 2, 2)), vectors=ROWS)
    found = opened(tmp_path / "x.npz", tmp_path / "scratch")
    assert found.key == "vectors"
    assert np.array_equal(found.vectors, ROWS)


def test_several_arrays_need_a_key(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", train=ROWS, test=ROWS[:5])
    error = refused(tmp_path / "x.npz")
    assert "--key" in error.hint
    assert "train: 20 x 6 float32" in error.hint
    assert "test: 5 x 6 float32" in error.hint
    chosen = opened(tmp_path / "x.npz", tmp_path / "scratch", "test").vectors
    assert np.array_equal(chosen, ROWS[:5])
    assert "There is no array other" in refused(tmp_path / "x.npz", "other").summary


def test_a_key_is_for_archives(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    assert "--key" in refused(tmp_path / "rows.npy", "x").summary


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.zeros(7), "7 float64"),
        (np.float32(3), "a single number"),
        (np.zeros((2, 3, 4)), "2 x 3 x 4"),
        (np.zeros((0, 5)), "no row"),
        (np.zeros((5, 0)), "two numbers"),
        (np.zeros((5, 1)), "two numbers"),
        (np.zeros((5, 4), complex), "real numbers"),
        (np.zeros((5, 4), "U3"), "real numbers"),
        (np.zeros((5, 4), bool), "real numbers"),
        (np.zeros(5, [("a", "f4"), ("ä", "f4")]), "real numbers"),
        (np.zeros((5, 4), "datetime64[s]"), "real numbers"),
    ],
)
# numpy warns while saving the field name, which needs version 3.0 of the format
@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
def test_wrong_arrays(tmp_path: Path, rows: Any, words: str) -> None:
    np.save(tmp_path / "rows.npy", rows)
    assert words in refused(tmp_path / "rows.npy").summary


@pytest.mark.parametrize("kept", [200, 128, 130])
def test_a_cut_file_tells_both_sizes(tmp_path: Path, kept: int) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    whole = (tmp_path / "rows.npy").read_bytes()
    (tmp_path / "rows.npy").write_bytes(whole[:kept])
    summary = refused(tmp_path / "rows.npy").summary
    assert "promises 480 bytes" in summary
    assert f"{kept - 128} are there" in summary


def test_two_arrays_in_one_file(tmp_path: Path) -> None:
    with (tmp_path / "rows.npy").open("wb") as file:
        np.save(file, ROWS)
        np.save(file, ROWS)
    assert "608 bytes follow" in refused(tmp_path / "rows.npy").summary


def test_a_header_that_promises_more_than_any_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    whole = (tmp_path / "rows.npy").read_bytes()
    text = whole.replace(b"(20, 6), }      ", b"(9999999999, 6)}", 1)
    assert text != whole
    (tmp_path / "rows.npy").write_bytes(text)
    assert "cut short" in refused(tmp_path / "rows.npy").summary


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    rows = np.array([[Bomb(tmp_path / "boom"), 1]], dtype=object)
    np.save(tmp_path / "rows.npy", rows, allow_pickle=True)
    error = refused(tmp_path / "rows.npy")
    assert "would run whatever code is in it" in error.summary
    assert "numpy.save(" in error.hint
    np.savez(tmp_path / "rows.npz", rows)
    assert "pickle" in refused(tmp_path / "rows.npz").summary
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ["rows.npy", "rows.pkl", "rows.npz"])
def test_pickles_are_refused_whatever_their_name(tmp_path: Path, protocol: int, name: str) -> None:
    content = [Bomb(tmp_path / "boom"), ROWS.tolist() * 50]
    (tmp_path / name).write_bytes(pickle.dumps(content, protocol))
    error = refused(tmp_path / name)
    assert "would run whatever code is in it" in error.summary
    assert "numpy.save(" in error.hint
    assert not (tmp_path / "boom").exists()


def torch_file() -> bytes:
    """A zip archive with the layout of torch.save."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({}))
        archive.writestr("model/data/0", ROWS.tobytes())
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "words", "hint"),
    [
        ("x.pt", torch_file(), "PyTorch", "weights_only=True"),
        ("x.npy", torch_file(), "PyTorch", "weights_only=True"),
        ("x.joblib", b"x\x9c" + bytes(range(256)), "pickle", "joblib.load"),
        ("x.pth", b"\x00\x01\x02", "pickle", "weights_only=True"),
        ("x.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5", "h5py"),
        ("x.npy.gz", gzip.compress(b"abc", mtime=0), "gzip", "Unpack"),
        ("x.parquet", b"PAR1" + bytes(50), "Parquet", "to_numpy"),
        ("x.jpg", b"\xff\xd8\xff\xe0" + bytes(50), "JPEG", "stillwatch run"),
        ("x.csv", b"1.5,2.5\n3.5,4.5\n" * 1000, "text", "loadtxt"),
        ("x.txt", "größe,ä\n".encode() * 1000, "text", "loadtxt"),
        ("x.bin", ROWS.tobytes(), "unknown kind", "fromfile"),
        (
            "x.safetensors",
            (60).to_bytes(8, "little") + b'{"a":{"dtype":"F32"}}' + bytes(50),
            "safetensors",
            "safetensors.numpy",
        ),
        ("x.zip", b"PK\x05\x06" + bytes(18), "no NumPy array", ""),
        ("x.npy", b"\x93NUMPY\x01\x00", "header", ""),
        ("x.npy", b"\x93NUMPY\x09\x09" + bytes(50), "header", ""),
        ("x.npy", b"", "empty", ""),
    ],
)
def test_other_files(tmp_path: Path, name: str, content: bytes, words: str, hint: str) -> None:
    (tmp_path / name).write_bytes(content)
    error = refused(tmp_path / name)
    assert words in error.summary
    assert hint in error.hint
    assert "FILE" not in error.hint


def test_no_file_at_all(tmp_path: Path) -> None:
    assert "There is no file" in refused(tmp_path / "absent.npy").summary
    (tmp_path / "folder").mkdir()
    assert "folder" in refused(tmp_path / "folder").summary
    os.mkfifo(tmp_path / "pipe")
    assert "regular" in refused(tmp_path / "pipe").summary


@pytest.mark.parametrize("cut", [30, 300, 520, 700])
def test_a_cut_archive(tmp_path: Path, cut: int) -> None:
    np.savez_compressed(tmp_path / "x.npz", ROWS)
    whole = (tmp_path / "x.npz").read_bytes()
    assert len(whole) > 700
    (tmp_path / "x.npz").write_bytes(whole[:cut])
    assert "cut short or damaged" in refused(tmp_path / "x.npz").summary


def test_a_flipped_byte_in_an_archive(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", ROWS)
    damaged = bytearray((tmp_path / "x.npz").read_bytes())
    damaged[damaged.index(ROWS.tobytes()) + 100] ^= 0xFF
    (tmp_path / "x.npz").write_bytes(damaged)
    assert "CRC" in refused(tmp_path / "x.npz").summary


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(0, 127), value=st.integers(0, 255))
def test_a_damaged_header_never_ends_otherwise(tmp_path: Path, place: int, value: int) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    content = bytearray((tmp_path / "rows.npy").read_bytes())
    content[place] = value
    (tmp_path / "rows.npy").write_bytes(content)
    try:
        found = opened(tmp_path / "rows.npy", tmp_path / "scratch")
    except UsageError:
        return
    assert found.vectors.size * found.vectors.itemsize == ROWS.nbytes


def nothing(stage: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bad_rows_are_told_apart(monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    monkeypatch.setattr(descriptor_rows, "BLOCK_BYTES", 4 * 6 * 7)
    rows = ROWS.astype(dtype)
    rows[3, 1], rows[19, 5] = np.nan, -np.inf
    rows[8, :2] = np.inf, np.nan
    rows[11] = 0
    bad = find_bad_rows(rows, nothing)
    assert bad.nan.tolist() == [3, 8]
    assert bad.infinite.tolist() == [19]
    assert bad.zero.tolist() == [11]
    assert bad.rows.tolist() == [3, 8, 11, 19]
    assert bad.words == "2 with NaN (rows 3, 8), 1 infinite (row 19), 1 all zero (row 11)"


def test_huge_and_tiny_rows_are_good() -> None:
    rows = np.ones((4, 3))
    rows[0] *= 1e300
    rows[1] *= 1e-300
    assert not len(find_bad_rows(rows, nothing).rows)
    assert not len(find_bad_rows(np.full((2, 3), np.iinfo(np.int64).max), nothing).rows)


def test_many_bad_rows_are_not_all_named() -> None:
    bad = find_bad_rows(np.zeros((1000, 2)), nothing)
    assert bad.words == "1,000 all zero (rows 0, 1, 2, 3, 4, ...)"


def test_a_copy_that_does_not_fit(tmp_path: Path) -> None:
    endless = np.lib.stride_tricks.as_strided(np.zeros(2), (1 << 50, 2), (0, 8))
    with pytest.raises(DiskFullError, match="are free") as caught:
        write_rows(
            endless,
            np.lib.stride_tricks.as_strided(np.zeros(1, np.int64), (1 << 50,), (0,)),
            tmp_path / "x.npy",
        )
    assert "TMPDIR" in caught.value.hint
    assert not (tmp_path / "x.npy").exists()
