"""The stages of a clustering run: what each is called, what it took, how far the run is."""

import time
from collections.abc import Callable, Mapping
from typing import Final

Progress = Callable[[str, int, int], None]
"""Told the stage in words, the work done and the work in all."""

STAGES: Final[Mapping[str, int]] = {
    "reading frames": 0,
    "finding the main differences": 3,
    "measuring frames": 7,
    "finding bursts": 12,
    "finding neighbours": 45,
    "joining neighbours": 63,
    "forming clusters": 76,
    "measuring clusters": 81,
}
"""Stage -> percent of the time that lies behind it, measured on 416,314 frames."""


class Stages:
    """Tells the stages as they begin and keeps their seconds."""

    def __init__(
        self, progress: Progress | None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._clock = clock
        self._begun = ("", clock())

    def begin(self, stage: str) -> None:
        """Start a stage; the one before it has ended."""
        self.end()
        self._begun = (stage, self._clock())
        if self._progress is not None:
            self._progress(stage, STAGES[stage], 100)

    def end(self) -> None:
        """End the stage that is running, if any."""
        stage, begun = self._begun
        if stage:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + self._clock() - begun
        self._begun = ("", 0.0)
