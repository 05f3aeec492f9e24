"""A camera as a process of its own: delivers near-duplicates with fsync and keeps a list of them.

    python -m tests.faults.camera FOLDER LIST [--per-second 8] [--first 0] [--views 48] [--large]

Every second picture is written in place, the others under a temporary name and renamed. A line of
LIST (name, SHA-256) is written only when file and folder were confirmed by fsync: what stands
there may never be lost. LIST is to lie outside of what is hurt. Ends when it is killed.
"""

import argparse
import errno
import hashlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import cv2

from daemon.demo.render import render_frame, render_jpeg
from tests.end_to_end.process import ROOT

VIEWS: Final = 48
"""Frames that are sent again and again, each time with other bytes at their end."""
FULL_SECONDS: Final = 1.0
"""Until the next try where the disk is full."""
IN_A_ROW: Final = 4
"""Pictures of one view, one after the other: all but the first of them are redundant."""
FIRST_VIEW, STEP, SEED = 20, 3, 7
WIDTH, HEIGHT, QUALITY = 240, 180, 80
"""Some 6 KB a picture; a large one, as the simulated camera makes it, has 50 KB."""


@dataclass(frozen=True, slots=True)
class Lens:
    """What the camera sends: so many different views, small or large pictures of them."""

    views: int = VIEWS
    large: bool = False

    def shot(self, number: int) -> bytes:
        """The file of a number: no other number has the same bytes."""
        return _view(number // IN_A_ROW % self.views, self.large) + b"\0%d" % number


@cache
def _view(number: int, large: bool) -> bytes:
    frame = FIRST_VIEW + STEP * number
    if large:
        return render_jpeg(frame, SEED)
    small = cv2.resize(
        render_frame(frame, SEED)[..., ::-1], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA
    )
    done, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise RuntimeError("OpenCV could not write a JPEG")
    return bytes(data.tobytes())


def name_of(number: int) -> str:
    """Its name in the folder."""
    return f"shot-{number:07d}.jpg"


def deliver(folder: Path, number: int, lens: Lens) -> bytes:
    """Write one picture so that no power cut takes it; its bytes."""
    data, name = lens.shot(number), name_of(number)
    target = folder / name
    written = target if number % 2 else folder / f".{name}.part"
    with written.open("wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        file.write(data[len(data) // 2 :])
        file.flush()
        os.fsync(file.fileno())
    if written != target:
        written.rename(target)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return data


@dataclass(slots=True)
class CameraProcess:
    """Starts and ends the process; `folder`: where to, `listed`: its list."""

    folder: Path
    listed: Path
    per_second: float
    lens: Lens = Lens()
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Go on behind the last picture that any earlier one may have begun."""
        command = [sys.executable, "-m", "tests.faults.camera", self.folder, self.listed]
        options = ["--per-second", self.per_second, "--first", self.next_number()]
        options += ["--views", self.lens.views, *(["--large"] if self.lens.large else [])]
        self.process = subprocess.Popen(
            [str(part) for part in (*command, *options)], cwd=ROOT, start_new_session=True
        )

    def end(self) -> None:
        """Kill it and wait for its end; safe to call twice."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def delivered(self) -> dict[str, str]:
        """Name and SHA-256 of everything that is confirmed."""
        if not self.listed.exists():
            return {}
        whole, _, _ = self.listed.read_text().rpartition("\n")
        return dict(line.split(" ", 1) for line in whole.splitlines())

    def next_number(self) -> int:
        """The number after the last one of the list; the one in flight is counted, too."""
        numbers = [int(name.split("-")[1].split(".")[0]) for name in self.delivered()]
        return max(numbers) + 2 if numbers else 0


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.camera", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("listed", type=Path)
    parser.add_argument("--per-second", type=float, default=8.0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--views", type=int, default=VIEWS)
    parser.add_argument("--large", action="store_true")
    chosen = parser.parse_args(arguments)
    lens = Lens(chosen.views, chosen.large)
    number, due = chosen.first, time.monotonic()
    with chosen.listed.open("a") as listed:
        while True:
            try:
                data = deliver(chosen.folder, number, lens)
            except OSError as exc:
                if exc.errno != errno.ENOSPC:
                    raise
                time.sleep(FULL_SECONDS)  # as cameras do: the same name once more
                continue
            listed.write(f"{name_of(number)} {hashlib.sha256(data).hexdigest()}\n")
            listed.flush()
            number += 1
            due = max(due + 1 / chosen.per_second, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
