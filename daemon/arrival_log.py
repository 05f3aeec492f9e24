"""What the log tells of arrivals: each refusal once, and how many frames came, now and then."""

import logging
from collections.abc import Callable
from typing import Final

from daemon.messages import DecodedImage, RefusedFile
from storage.names import printable_path

log = logging.getLogger(__name__)

TELL_SECONDS: Final = 600.0
_KNOWN_LIMIT: Final = 10_000


class ArrivalLog:
    """Stands between those who examine files and the pipeline.

    Args:
        deliver: The pipeline's intake; may block.
        recorded: Frames recorded since the start.
        monotonic: Clock in seconds.
    """

    def __init__(
        self,
        deliver: Callable[[DecodedImage | RefusedFile], None],
        recorded: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self._deliver = deliver
        self._recorded = recorded
        self._monotonic = monotonic
        self._known: set[tuple[int, bytes, str]] = set()
        self._told = 0
        self._told_at = monotonic()

    def deliver(self, item: DecodedImage | RefusedFile) -> None:
        """Hand an item on; called from several threads."""
        if isinstance(item, RefusedFile) and (item.final or item.unreadable):
            self._tell_refusal(item)
        self._deliver(item)

    def tell(self, *, at_once: bool = False) -> None:
        """Say how many frames came since the last time, if it is long ago; or `at_once`."""
        now, recorded = self._monotonic(), self._recorded()
        if not at_once and now - self._told_at < TELL_SECONDS:
            return
        if recorded > self._told:
            minutes = max(1, round((now - self._told_at) / 60))
            log.info("%d frames recorded in the last %d min", recorded - self._told, minutes)
        self._told, self._told_at = recorded, now

    def _tell_refusal(self, item: RefusedFile) -> None:
        known = (item.file.camera_id, item.file.path, item.reason)
        if known in self._known:
            return
        if len(self._known) >= _KNOWN_LIMIT:
            self._known.clear()
        self._known.add(known)
        what = "is no usable picture" if item.final else "is tried again later"
        log.warning("%s %s: %s", printable_path(item.file.path), what, item.reason)
