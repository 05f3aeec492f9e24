"""The file of labels: whole or not at all, and nothing of the user's is replaced unasked."""

import os
from pathlib import Path

import numpy as np
import pytest

from daemon.clustering.labels_file import check_target, write_labels
from storage.errors import StillwatchError, UsageError

LABELS = np.array([0, 1, -1, 0], dtype=np.int64)


def test_labels_are_written_under_the_very_name(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_labels(tmp_path / "labels", LABELS, force=False)
    finally:
        os.umask(before)
    read = np.load(tmp_path / "labels")
    assert read.dtype == np.int64
    assert np.array_equal(read, LABELS)
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]
    assert (tmp_path / "labels").stat().st_mode & 0o777 == 0o640


def test_a_file_that_came_meanwhile_stays(tmp_path: Path) -> None:
    (tmp_path / "labels.npy").write_text("mine")
    with pytest.raises(UsageError, match="already"):
        write_labels(tmp_path / "labels.npy", LABELS, force=False)
    assert (tmp_path / "labels.npy").read_text() == "mine"
    write_labels(tmp_path / "labels.npy", LABELS, force=True)
    assert np.array_equal(np.load(tmp_path / "labels.npy"), LABELS)
    assert [path.name for path in tmp_path.iterdir()] == ["labels.npy"]


def test_a_folder_that_vanished(tmp_path: Path) -> None:
    with pytest.raises(StillwatchError, match="cannot be written"):
        write_labels(tmp_path / "gone" / "labels.npy", LABELS, force=True)


def test_targets_that_are_refused_beforehand(tmp_path: Path) -> None:
    vectors, other = tmp_path / "vectors.npy", tmp_path / "other.npy"
    vectors.write_text("vectors")
    (tmp_path / "link.npy").symlink_to(vectors)
    (tmp_path / "dangling.npy").symlink_to(tmp_path / "nowhere")
    for out, force, words in (
        (tmp_path / "gone" / "x.npy", False, "no folder"),
        (tmp_path, False, "is a folder"),
        (vectors, True, "file of the vectors"),
        (tmp_path / "link.npy", True, "file of the vectors"),
        (tmp_path / "dangling.npy", False, "already"),
        (Path("/dev/null"), True, "no regular file"),
    ):
        with pytest.raises(UsageError, match=words):
            check_target(out, vectors, force=force)
    check_target(other, vectors, force=False)
    other.write_text("labels of yesterday")
    with pytest.raises(UsageError, match="already"):
        check_target(other, vectors, force=False)
    check_target(other, vectors, force=True)
    assert vectors.read_text() == "vectors"
