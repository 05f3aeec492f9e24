"""How log lines look: one line an event, escaped, with a level that a stranger understands.

error: the owner must act; warning: something was refused or works less well; info: what was done.
Under systemd each line begins with its priority (sd-daemon(3)) and has no time, which the journal
adds; in a file it has one; on a terminal neither.
"""

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from storage.names import printable_path

PACKAGES: Final = ("daemon", "storage", "cli")

SAME_SECONDS: Final = 60.0
"""The same line is shown once in this time; so is the first line of a kind after too many."""
KIND_LINES: Final = 10
"""Lines of one kind (same place in the program, other names) in that time."""
_FRAMES: Final = 8
_PRIORITIES: Final = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
_KNOWN_LIMIT: Final = 1000


def set_up_logging(*, verbose: bool) -> None:
    """Send the lines of the program's packages to stderr; other libraries stay quiet."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    # By name: the three packages have no parent logger.
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.DEBUG if verbose else logging.WARNING)


def log_events() -> None:
    """Show what a running daemon does (plans, changes of state), with times, without floods."""
    gate = FloodGate()
    formatter = LineFormatter(times=not sys.stderr.isatty())
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.setLevel(min(logger.level, logging.INFO))
        for handler in logger.handlers:
            handler.setFormatter(formatter)
            handler.filters[:] = [gate]


def to_journal() -> bool:
    """Whether stderr goes to systemd's journal (JOURNAL_STREAM of systemd.exec(5))."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def journal_prefix(level: int) -> str:
    """The mark of a level before a line that goes to the journal; else nothing."""
    return f"<{_PRIORITIES.get(level, 6)}>" if to_journal() else ""


class LineFormatter(logging.Formatter):
    """One printable line: whatever a file is called, it forges none and steers no terminal."""

    def __init__(self, *, times: bool = False) -> None:
        super().__init__()
        self._journal = to_journal()
        self._times = times and not self._journal

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        text = f"{record.levelname} {record.name}: {record.getMessage()}"
        if record.exc_info and record.exc_info[1] is not None:
            text += f" {_one_line(record.exc_info[1])}"
        text += getattr(record, "told_less", "")
        line = printable_path(text.encode("utf-8", "surrogateescape"))
        if self._journal:
            return f"<{_PRIORITIES.get(record.levelno, 6)}>{line}"
        moment = time.strftime("%Y-%m-%dT%H:%M:%S%z ", time.localtime(record.created))
        return f"{moment}{line}" if self._times else line


def _one_line(error: BaseException) -> str:
    """A traceback, innermost call first, that fits into a line of a log."""
    calls = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    places = [f"{Path(c.filename).name}:{c.lineno} {c.name}" for c in reversed(calls)]
    return f"[Traceback: {type(error).__name__}: {error}; {' < '.join(places)}]"


class FloodGate(logging.Filter):
    """Holds back lines that say the same again and again, and counts them.

    Args:
        monotonic: Clock in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._same: dict[object, tuple[float, int]] = {}
        """Line -> when it was shown last, and how often it was held back since."""
        self._kinds: dict[object, tuple[float, int]] = {}
        """Kind -> when its count began, and lines since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show the line; notes in it what was held back before."""
        now = self._monotonic()
        line = (record.name, record.levelno, record.getMessage())
        shown_at, held_back = self._same.get(line, (float("-inf"), 0))
        if now - shown_at < SAME_SECONDS:
            self._same[line] = (shown_at, held_back + 1)
            return False
        note = f" (the same {held_back} times more in between)" if held_back else ""
        kind = (record.name, record.levelno, record.msg)
        began_at, count = self._kinds.get(kind, (now, 0))
        if now - began_at >= SAME_SECONDS:
            if count > KIND_LINES:
                note += f" ({count - KIND_LINES} more of this kind were not shown)"
            began_at, count = now, 0
        count += 1
        self._kinds[kind] = (began_at, count)
        if count > KIND_LINES:
            return False
        if count == KIND_LINES:
            note += " (more of this kind are only counted for a minute)"
        self._forget_old(now)
        self._same[line] = (now, 0)
        record.told_less = note
        return True

    def _forget_old(self, now: float) -> None:
        if len(self._same) > _KNOWN_LIMIT:
            recent = {k: v for k, v in self._same.items() if now - v[0] < SAME_SECONDS}
            self._same = recent if len(recent) <= _KNOWN_LIMIT else {}
