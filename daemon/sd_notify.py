"""Tells systemd how the daemon is: the datagrams of sd_notify(3), and nothing else.

Without `NOTIFY_SOCKET` (no systemd, or not Type=notify) every call does nothing. A message that
cannot be delivered is dropped: the service manager's absence must never stop the work.
"""

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Sends the daemon's condition to the service manager.

    Args:
        environment: Where `NOTIFY_SOCKET` is looked up; default: the process environment.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        found = os.environ if environment is None else environment
        self._address = _address(found.get("NOTIFY_SOCKET", ""))

    @property
    def active(self) -> bool:
        """Whether somebody listens."""
        return self._address is not None

    def ready(self, status: str = "") -> None:
        """The start is complete: READY=1, with a line for `systemctl status`."""
        self._send("READY=1", *_status_lines(status))

    def status(self, text: str) -> None:
        """One line for `systemctl status`; line breaks in `text` become spaces."""
        self._send(*_status_lines(text))

    def watchdog(self) -> None:
        """The pipeline made progress: WATCHDOG=1. Never call it from a mere timer."""
        self._send("WATCHDOG=1")

    def stopping(self, status: str = "") -> None:
        """The clean end has begun: STOPPING=1."""
        self._send("STOPPING=1", *_status_lines(status))

    def reloading(self) -> None:
        """The settings are being read again; `ready` must follow."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for `seconds` more, from now, before start or stop count as hung."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")

    def _send(self, *lines: str) -> None:
        if self._address is None or not lines:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                # A full queue of the manager must not hold up the pipeline.
                sender.settimeout(1.0)
                sender.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
        except OSError:
            return


def watchdog_interval(environment: Mapping[str, str] | None = None) -> float | None:
    """Seconds between two `watchdog` calls: half of what systemd allows (sd_watchdog_enabled(3)).

    None when no watchdog is set, or when it is meant for another process.
    """
    found = os.environ if environment is None else environment
    owner = found.get("WATCHDOG_PID", "")
    if owner and owner != str(os.getpid()):
        return None
    try:
        microseconds = int(found.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return microseconds / 2_000_000 if microseconds > 0 else None


def _address(value: str) -> bytes | None:
    if value.startswith("@"):  # an abstract socket: its name begins with a zero byte
        return b"\0" + os.fsencode(value[1:])
    return os.fsencode(value) if value.startswith("/") else None


def _status_lines(text: str) -> tuple[str, ...]:
    return (f"STATUS={' '.join(text.split())}",) if text.strip() else ()
