"""The part of the scheduler that concerns encoders: changes go forward, gaps are filled."""

import logging
import time
from collections.abc import Callable
from typing import Final

from daemon.jobs.encoder_switch import Advance
from daemon.jobs.reembed import fill_gaps
from daemon.jobs.workshop import Workshop
from storage import spaces
from storage.errors import StillwatchError

log = logging.getLogger(__name__)

WAIT_SECONDS: Final = 30.0
"""Between two looks for a camera whose folder is away, and after a first failure."""
LONGEST_WAIT_SECONDS: Final = 3600.0


class EncoderUpkeep:
    """Works for some time whenever it is called; the caller calls again.

    Args:
        workshop: What the jobs work with.
        monotonic: Clock of the waits.
    """

    def __init__(self, workshop: Workshop, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._workshop = workshop
        self._monotonic = monotonic
        self._advance = Advance(workshop, wait_for_cameras=True)
        self._not_before = float("-inf")
        self._failures = 0
        self._served: int | None = None
        self._look_for_gaps = True
        self._tried: set[int] = set()

    def look_again(self) -> None:
        """Try soon to fill what is missing in the space that serves."""
        self._look_for_gaps = True
        self._tried.clear()

    def work(self) -> bool:
        """Do what is due; True when another space serves since this call.

        Raises:
            StillwatchError: It failed; the next try is some time later.
        """
        if self._monotonic() < self._not_before:
            return False
        try:
            outcome = self._advance.step(_quiet)
            if outcome == "idle":
                self._fill()
        except StillwatchError:
            wait = min(LONGEST_WAIT_SECONDS, WAIT_SECONDS * 2**self._failures)
            self._not_before = self._monotonic() + wait
            self._failures = min(self._failures + 1, 16)
            raise
        self._failures = 0
        if outcome == "waiting":
            self._not_before = self._monotonic() + WAIT_SECONDS
        return outcome == "changed"

    def _fill(self) -> None:
        """Encode what is missing in the space that serves, if anything is."""
        with self._workshop.db.read() as connection:
            serving = spaces.serving_space(connection)
            if serving is not None and serving.id != self._served:
                self._served = serving.id  # since the start, or changed here or by an undo
                self.look_again()
            if serving is None or not self._look_for_gaps:
                return
            missing = spaces.lacking(connection, serving.id).tolist()
        if self._tried.issuperset(missing):
            self._look_for_gaps = False
            return
        stretch = fill_gaps(self._workshop, serving, tried=self._tried)
        self._tried.update(stretch.refused)
        self._look_for_gaps = not stretch.exhausted
        log.info("%d frames got the vector that they lacked", len(stretch.placeable))


def _quiet(_stage: str, _done: int, _total: int) -> None:
    """Work in the background has no onlooker; `status` shows how far it is."""
