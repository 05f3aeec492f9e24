"""`stillwatch cluster` in a process of its own: results, bad input, interruption."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, silhouette_score

from tests.cli_state import ROOT, Result, run_cli
from tests.planted import plant

KEYS = [
    *("n", "dim", "dtype", "key", "method", "settings", "seed", "clusters", "noise"),
    *("skipped_rows", "seconds", "cpu_seconds", "anonymous_bytes_peak", "scores_reason"),
    *("calinski_harabasz", "davies_bouldin", "silhouette", "silhouette_sampled"),
    *("silhouette_rows", "largest", "out"),
]
PLANTED = plant()


def cluster(*arguments: str | os.PathLike[str]) -> Result:
    return run_cli("cluster", *arguments)


def saved(folder: Path, rows: Any, name: str = "vectors.npy") -> Path:
    np.save(folder / name, rows)
    return folder / name


def test_the_result_and_its_labels(tmp_path: Path) -> None:
    source, out = saved(tmp_path, PLANTED.vectors), tmp_path / "labels.npy"
    result = cluster(source, "--out", out, "--json")
    facts = result.json()
    assert result.code == 0, result.err
    assert list(facts) == KEYS
    labels = np.load(out)
    assert labels.dtype == np.int64
    inside = PLANTED.labels >= 0
    assert adjusted_rand_score(PLANTED.labels[inside], labels[inside]) > 0.99
    assert (facts["n"], facts["dim"]) == PLANTED.vectors.shape
    assert facts["clusters"] == 6 == labels.max() + 1
    assert facts["noise"] == (labels < 0).sum()
    assert facts["largest"][0]["size"] == np.bincount(labels[labels >= 0]).max()
    assert facts["method"] == "density"
    assert facts["settings"] == {"min_cluster_size": 15}
    assert 20e6 < facts["anonymous_bytes_peak"] < 1e9
    inside = labels >= 0
    exact = silhouette_score(PLANTED.vectors[inside], labels[inside], metric="cosine")
    assert facts["silhouette"] == pytest.approx(exact, abs=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.npy", "vectors.npy"]


def test_the_words(tmp_path: Path) -> None:
    result = cluster(saved(tmp_path, PLANTED.vectors.astype(np.float16)))
    assert result.code == 0, result.err
    facts = dict(line.split("\t") for line in result.out.splitlines())
    assert facts["vectors"] == f"{len(PLANTED.vectors):,} x 160 float16"
    assert facts["method"] == "density (min_cluster_size 15)"
    assert facts["clusters"] == "6"
    assert facts["noise"].endswith("%)")
    assert facts["silhouette"].endswith("clustered rows)")
    assert "do not choose settings by them alone" in result.err
    assert "--out" in result.err


@pytest.mark.parametrize("options", [["--method", "kmeans", "--clusters", "6"], []])
def test_bad_rows_can_be_skipped(tmp_path: Path, options: list[str]) -> None:
    rows = PLANTED.vectors.astype(np.float64)
    rows[[4, 9]], rows[12] = np.nan, 0
    source, out = saved(tmp_path, rows), tmp_path / "labels.npy"
    refused = cluster(source, *options)
    assert refused.code == 2
    assert "3 of" in refused.err
    assert "2 with NaN (rows 4, 9), 1 all zero (row 12)" in refused.err
    assert "--skip-bad-rows" in refused.err
    done = cluster(source, *options, "--skip-bad-rows", "--out", out, "--json")
    assert done.code == 0, done.err
    assert "skipped 3 of" in done.err
    assert done.json()["skipped_rows"] == 3
    labels = np.load(out)
    assert labels[[4, 9, 12]].tolist() == [-1, -1, -1]
    good = np.setdiff1d(np.flatnonzero(PLANTED.labels >= 0), [4, 9, 12])
    assert adjusted_rand_score(PLANTED.labels[good], labels[good]) > 0.9


def test_an_archive_by_key(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", a=PLANTED.vectors[:50], b=PLANTED.vectors)
    assert "--key" in cluster(tmp_path / "x.npz").err
    result = cluster(tmp_path / "x.npz", "--key", "a", "--json")
    assert result.json()["n"] == 50
    assert result.json()["key"] == "a"


def make_npy_text(path: Path) -> None:
    path.write_text("1,2\n3,4\n")


def make_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(PLANTED.vectors))


def make_cut(path: Path) -> None:
    np.save(path, PLANTED.vectors)
    os.truncate(path, 5000)


def make_array(rows: Any) -> Callable[[Path], None]:
    """A function that saves these rows."""
    return lambda path: np.save(path, rows, allow_pickle=True)


def with_value(value: float) -> Callable[[Path], None]:
    """A function that saves rows whose row 7 holds this value."""
    rows = np.ones((30, 4))
    rows[7, 2] = value
    return make_array(rows)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (with_value(np.nan), "1 with NaN (row 7)"),
        (with_value(np.inf), "1 infinite (row 7)"),
        (make_array(np.eye(30)[:, :29]), "1 all zero (row 29)"),
        (make_array(np.zeros((30, 4))), "None of 30 rows has a direction"),
        (make_array(np.ones(30)), "this array is 30 float64"),
        (make_array(np.ones((3, 3, 3))), "3 x 3 x 3 float64"),
        (make_array(np.ones((0, 3))), "no row"),
        (make_array(np.ones((3, 0))), "at least two numbers"),
        (make_array(np.ones((3, 3), complex)), "real numbers"),
        (make_array(np.array([["a", None]], object)), "would run whatever code is in it"),
        (make_pickle, "would run whatever code is in it"),
        (make_cut, "4,872 are there"),
        (make_npy_text, "text"),
        (lambda path: path.touch(), "empty"),
        (lambda path: path.mkdir(), "folder"),
        (lambda path: None, "There is no file"),
    ],
)
def test_bad_input_is_explained(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    path = tmp_path / "vectors.npy"
    make(path)
    result = cluster(path, "--json")
    error = result.json()["error"]
    assert result.code == 2
    assert words in error["summary"]
    assert error["path"] == str(path)
    assert f"error: {error['summary']}" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("rows", "clusters"),
    [
        (np.ones((1, 4)), 0),
        (PLANTED.vectors[:14], 0),
        (np.ones((40, 4), np.int16), 1),
        (np.asfortranarray(PLANTED.vectors.astype(np.float64)), 6),
    ],
    ids=["one row", "fewer than a cluster", "all equal", "by column"],
)
def test_odd_input_has_a_sensible_result(tmp_path: Path, rows: Any, clusters: int) -> None:
    result = cluster(saved(tmp_path, rows), "--json", "--out", tmp_path / "labels.npy")
    facts = result.json()
    assert result.code == 0, result.err
    assert facts["clusters"] == clusters
    assert facts["noise"] == (np.load(tmp_path / "labels.npy") < 0).sum()
    if clusters < 2:
        assert facts["silhouette"] is None
        assert "fewer than two" in facts["scores_reason"]
    if clusters == 0:
        assert facts["noise"] == len(rows)
        assert "all noise" in result.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--clusters", "3"], "--clusters belongs to --method kmeans"),
        (["--method", "kmeans"], "needs --clusters"),
        (["--method", "kmeans", "--clusters", "9999"], "9,999 clusters need"),
        (["--method", "optics"], "Methods: density"),
        (["--method", "dbscan", "--eps", "7"], "at most 2"),
        (["--min-cluster-size", "1"], "less than 2"),
        (["--out", "/nowhere/labels.npy"], "no folder /nowhere"),
        (["--key", "x"], "--key"),
    ],
)
def test_wrong_usage(tmp_path: Path, options: list[str], words: str) -> None:
    result = cluster(saved(tmp_path, PLANTED.vectors), *options)
    assert result.code == 2
    assert words in result.err


def test_no_file_is_replaced_unasked(tmp_path: Path) -> None:
    source, out = saved(tmp_path, PLANTED.vectors[:40]), tmp_path / "labels.npy"
    out.write_text("mine")
    refused = cluster(source, "--out", out)
    assert refused.code == 2
    assert "--force" in refused.err
    assert out.read_text() == "mine"
    assert cluster(source, "--out", out, "--force").code == 0
    assert np.load(out).shape == (40,)
    assert cluster(source, "--out", source, "--force").code == 2
    assert np.load(source).shape == (40, 160)


@contextmanager
def long_run(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """The command at work for minutes, as it said, and its clustering process; both are ended."""
    rows = np.random.default_rng(0).standard_normal((15_000, 600)).astype(np.float32)
    np.savez(folder / "x.npz", rows)
    scratch = folder / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "cluster", str(folder / "x.npz"), "--method", "hdbscan"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        told = list(takewhile(lambda line: line != "clustering\n", process.stderr))
        assert any("15,000 rows: it may take about 2 min" in line for line in told)
        yield process, child_of(process.pid)
    finally:
        process.kill()
        process.communicate()


def child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


def wait_for_end(pid: int, seconds: float = 20) -> None:
    """Wait until a process is gone (a zombie is)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} is still at work")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with long_run(tmp_path) as (process, child):
        assert list((tmp_path / "scratch").iterdir())
        process.send_signal(number)
        assert process.wait(timeout=60) == 130
        wait_for_end(child)
    assert not list((tmp_path / "scratch").iterdir())


def test_a_killed_command_ends_its_process(tmp_path: Path) -> None:
    with long_run(tmp_path) as (process, child):
        process.kill()
        wait_for_end(child)


def test_a_killed_process_is_told(tmp_path: Path) -> None:
    with long_run(tmp_path) as (process, child):
        os.kill(child, signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "SIGKILL" in errors
    assert "memory" in errors


def test_the_command_itself_loads_no_clustering_library(tmp_path: Path) -> None:
    source = saved(tmp_path, PLANTED.vectors[:5])
    command = [sys.executable, "-X", "importtime", "-m", "cli.main", "cluster", str(source)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "numpy" in imported
    assert not imported & {"hdbscan", "sklearn", "scipy", "faiss", "tensorflow", "sqlalchemy"}


def test_the_error_object_is_all_that_stdout_has(tmp_path: Path) -> None:
    result = cluster(tmp_path / "absent.npy", "--json")
    assert set(json.loads(result.out)["error"]) == {"code", "summary", "hint", "path"}
    assert cluster(tmp_path / "absent.npy").out == ""
