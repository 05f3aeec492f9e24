"""The main job on real footage: `run --once` on a copy of each folder, checked from outside.

    python tests/benchmarks/real_footage.py DEV_FOLDER [NAME ...]

For each camera folder it prints: exit code, candidates and rows, states, whether `verify` is ok,
whether a second run changed anything, the share of redundant frames, and - where labels.csv has
labels - the frames that were called a duplicate of a keeper with another label and the first
frames of a run with another label that were not kept. Ends with 1 if anything that must hold
does not.
"""

import csv
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

IGNORED = {"csv", "txt", "json", "xml", "xmp", "md", "log", "mp4", "avi", "db"}
SEQUENCES = ("fixedcam_road", "cameratrap_box1")
"""Folders whose labels follow the capture order."""


def stillwatch(state: Path, *arguments: str) -> tuple[int, str]:
    """Run the program and return its exit code and standard output."""
    command = [sys.executable, "-m", "cli.main", "--state", str(state), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "Traceback" in done.stderr:
        print(done.stderr)
    return done.returncode, done.stdout


def frames_of(state: Path) -> list[dict[str, Any]]:
    """Every frame as `frames --json` prints it."""
    return [json.loads(line) for line in stillwatch(state, "frames", "--json")[1].splitlines()]


def snapshot(state: Path) -> list[Any]:
    """What a second run on an unchanged folder must leave as it is."""
    clusters = stillwatch(state, "clusters", "--json")[1]
    plan = json.loads(stillwatch(state, "dedup", "plan", "--json")[1])
    return [frames_of(state), clusters, plan]


def label_errors(folder: Path, frames: list[dict[str, Any]]) -> tuple[int, int]:
    """(duplicates of a keeper with another label, lost first frames of a run)."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    labels = {row["path"]: row["label"] for row in rows}
    by_id = {frame["id"]: frame for frame in frames}
    by_path = {frame["original_path"]: frame for frame in frames}
    wrong = 0
    for frame in frames:
        keeper = by_id.get(frame["duplicate_of"] or "")
        if keeper is None:
            continue
        pair = {labels.get(frame["original_path"]), labels.get(keeper["original_path"])}
        wrong += len(pair) > 1 and "unclear" not in pair
    lost = 0
    if folder.name in SEQUENCES:
        known = [row for row in rows if row["label"] != "unclear"]
        known.sort(key=lambda row: int(row["frame"]))
        before = None
        for row in known:
            if row["label"] != before:
                lost += by_path[row["path"]]["duplicate_of"] is not None
            before = row["label"]
    return wrong, lost


def examine(source: Path, work: Path) -> bool:
    """Run one folder and print its line; whether everything that must hold does."""
    folder, state = work / source.name, work / f"{source.name}.state"
    shutil.copytree(source, folder)
    files = [p for p in folder.rglob("*") if p.is_file()]
    candidates = sum(p.suffix[1:].lower() not in IGNORED for p in files)
    started = time.monotonic()
    code, output = stillwatch(state, "run", str(folder), "--once", "--json")
    seconds = time.monotonic() - started
    status = json.loads(output)
    frames = frames_of(state)
    verified = stillwatch(state, "verify")[0] == 0
    before = snapshot(state)
    second, _ = stillwatch(state, "run", str(folder), "--once", "--json")
    same = snapshot(state) == before
    near = sum(frame["state"] == "near_duplicate" for frame in frames)
    exact = sum(frame["state"] == "exact_duplicate" for frame in frames)
    embedded = sum(frame["state"] not in ("pending", "rejected") for frame in frames)
    counts = {k: v for k, v in status["frames"].items() if v and k not in ("total", "on_disk")}
    good = code == second == 0 and verified and same and len(frames) == candidates
    line = (
        f"{source.name}: exit {code}, {len(frames)} rows of {candidates} candidates,"
        f" verify {'ok' if verified else 'NOT OK'}, second run"
        f" {'changed nothing' if same else 'CHANGED SOMETHING'} (exit {second});"
        f" redundant {near + exact} of {embedded} ({(near + exact) / max(embedded, 1):.1%}),"
        f" kind {status['cameras'][0]['kind']}, {status['clusters']} clusters; {counts};"
        f" {seconds:.1f} s"
    )
    if (source / "labels.csv").exists():
        wrong, lost = label_errors(source, frames)
        line += f"; duplicates across labels {wrong}, lost first frames {lost}"
        if source.name in SEQUENCES:
            good = good and wrong == 0 and lost == 0
    if source.name == "dashcam_highway":
        good = good and near == 0
    print(line, flush=True)
    return good


def main() -> int:
    """Examine the folders named on the command line, or all of them."""
    dev = Path(sys.argv[1])
    names = sys.argv[2:] or sorted(p.name for p in dev.iterdir() if p.is_dir())
    with tempfile.TemporaryDirectory() as work:
        results = [examine(dev / name, Path(work)) for name in names]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
