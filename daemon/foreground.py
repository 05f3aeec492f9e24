"""The daemon in the foreground: signals, and the patience of a service at its start."""

import logging
from contextlib import ExitStack
from typing import Final

from daemon.run_options import Clock, Report, RunOptions
from daemon.sd_notify import Notifier
from daemon.service import Service
from daemon.signals import Signals
from storage.errors import DiskFullError, LockedError

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = {LockedError: 120.0, DiskFullError: float("inf")}
"""How long a service waits at its start for what mends itself; whoever sits there is told at once.
A command that works on the state folder is done soon; a full disk gets its room."""
AGAIN_SECONDS: Final = 5.0


def main(options: RunOptions, report: Report, *, clock: Clock | None = None) -> int:
    """Run the daemon in the foreground until a signal, or once.

    Args:
        options: Folders, state folder, settings file, what to do.
        report: Takes plain lines for the owner (stderr).
        clock: Handed in by tests.

    Returns:
        The exit code: 0 after a clean drain; with `once` 3 where a file could not be examined.

    Raises:
        StillwatchError: It could not start (exit code in the error).
    """
    signals = Signals(reloads=not options.once)
    restore = signals.install()
    notifier = Notifier()
    clock = clock or Clock()
    try:
        with ExitStack() as stack:
            service = _start(options, report, clock, stack, notifier, signals)
            return 0 if service is None else service.run(signals)
    finally:
        restore()


def _start(
    options: RunOptions,
    report: Report,
    clock: Clock,
    stack: ExitStack,
    notifier: Notifier,
    signals: Signals,
) -> Service | None:
    """Build the service; a unit's waits for what mends itself. None: stopped meanwhile."""
    began = clock.monotonic()
    while True:
        try:
            with ExitStack() as attempt:
                service = Service(options, report, clock, attempt, notifier)
                stack.push(attempt.pop_all())
                return service
        except (LockedError, DiskFullError) as exc:
            waited = clock.monotonic() - began
            if options.once or not notifier.active or waited > PATIENCE_SECONDS.get(type(exc), 0):
                raise
            log.warning("It is not started yet: %s", exc.summary)
            notifier.status(f"waiting: {exc.summary}")
            notifier.extend_timeout(10 * AGAIN_SECONDS)
            if signals.stop.wait(AGAIN_SECONDS):
                return None
