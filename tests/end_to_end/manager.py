"""The service manager's end of sd_notify(3): a real datagram socket."""

import os
import socket
from pathlib import Path


class Manager:
    """Hears what a daemon tells; `environment` is what systemd would give it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(os.fspath(path))
        self._socket.setblocking(False)
        self.heard: list[str] = []

    def environment(self, watchdog_seconds: float | None = None) -> dict[str, str]:
        """The variables of a unit, with WatchdogSec= where it is given."""
        found = {"NOTIFY_SOCKET": os.fspath(self._path)}
        if watchdog_seconds is not None:
            found["WATCHDOG_USEC"] = str(round(watchdog_seconds * 1_000_000))
        return found

    def listen(self) -> list[str]:
        """Everything that was said so far, line by line."""
        while True:
            try:
                self.heard.extend(self._socket.recv(4096).decode().splitlines())
            except BlockingIOError:
                return self.heard

    def beats(self) -> int:
        """How often the watchdog was fed so far."""
        return self.listen().count("WATCHDOG=1")

    def close(self) -> None:
        self._socket.close()
