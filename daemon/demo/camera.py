"""The simulated camera: delivers rendered frames into a folder as cameras and uploaders do."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from daemon.demo.render import BURST, capture_time, render_jpeg

Pace = Callable[[int], float]
"""Seconds after the start at which a frame is due."""

FIRST_MINUTE: Final = 104
"""Frames of the first minute: a hundred pictures for the first clustering, and some to spare."""
_STEP: Final = 0.64
_BURST_SECONDS: Final = 0.9
_LATER_STEP: Final = 2.0
_PIECES: Final = 3


def demo_pace(index: int) -> float:
    """The pace of the demo: `FIRST_MINUTE` frames in a minute, then one every two seconds."""
    if index >= FIRST_MINUTE:
        return 60.0 + (index - FIRST_MINUTE) * _LATER_STEP
    before = min(index, BURST.start) * _STEP
    if index < BURST.start:
        return before
    inside = min(index - BURST.start, len(BURST) - 1) * _BURST_SECONDS / (len(BURST) - 1)
    after = max(index - BURST.stop + 1, 0) * _STEP
    return before + inside + after


def frame_name(index: int) -> str:
    """The file name of a frame: it carries the simulated camera's clock."""
    return capture_time(index).strftime("demo-%Y%m%d-%H%M%S.jpg")


class SimulatedCamera:
    """Writes frames into a folder, most by temporary name and rename, some in place in pieces.

    Args:
        folder: Where the pictures go; must exist.
        seed: The yard and everything that happens in it follow from it.
    """

    def __init__(self, folder: Path, seed: int = 7) -> None:
        self._folder = folder
        self._seed = seed
        self.delivered = 0
        """Files delivered so far."""

    def play(
        self, stop: threading.Event, pace: Pace = demo_pace, *, frames: int | None = None
    ) -> None:
        """Deliver frame after frame, each when it is due; returns soon after `stop` is set.

        Args:
            stop: Ends the play.
            pace: When each frame is due, in seconds after this call.
            frames: End after this many; None goes on until `stop`.
        """
        start = time.monotonic()
        index = 0
        while frames is None or index < frames:
            data = render_jpeg(index, self._seed)
            if stop.wait(max(0.0, start + pace(index) - time.monotonic())):
                return
            self._deliver(index, data, stop)
            self.delivered += 1
            index += 1

    def _deliver(self, index: int, data: bytes, stop: threading.Event) -> None:
        path = self._folder / frame_name(index)
        if index % 10 == 3:
            # Some uploaders write under the final name, with pauses: half a file for a while.
            size = len(data) // _PIECES + 1
            with path.open("wb", buffering=0) as file:
                for offset in range(0, len(data), size):
                    file.write(data[offset : offset + size])
                    stop.wait(0.05)
            return
        hidden = path.with_name(f".{path.name}.part")
        hidden.write_bytes(data)
        hidden.rename(path)
