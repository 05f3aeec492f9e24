"""When the banks of places are stored, from which a start knows what the cameras show."""

import time
from collections.abc import Iterable
from typing import Final

from daemon.ingest.encoding import FrameJudge
from daemon.ingest.recording import Recorder

BANK_SECONDS: Final = 300.0
"""What a camera's places look like is stored this often: a bank is some 200 kB."""


class CameraBanks:
    """Remembers whose banks have changed, and has them written by the recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._due: dict[int, float] = {}
        """Monotonic time, in seconds, by camera."""

    def note(self, cameras: Iterable[int], judge: FrameJudge, space_id: int) -> None:
        """The judge saw frames of these cameras; store all that changed when one is due."""
        now = time.monotonic()
        for camera_id in cameras:
            self._due.setdefault(camera_id, now + BANK_SECONDS)
        if min(self._due.values(), default=now + 1) <= now:
            self.store(judge, space_id)

    def store(self, judge: FrameJudge | None, space_id: int) -> None:
        """Store what changed; without a judge it is forgotten.

        Args:
            judge: The clustering that is served.
            space_id: Row of the embedding space in which it judges.
        """
        cameras, self._due = list(self._due), {}
        if judge is None or not cameras:
            return
        known = {camera_id: judge.camera(camera_id) for camera_id in cameras}
        banks = {i: state.bank for i, state in known.items() if state.bank is not None}
        limits = {i: state.alpha for i, state in known.items() if state.alpha is not None}
        self._recorder.store_banks(space_id, banks, limits)
