"""What the daemon does when it is sent a signal: stop, or read its settings again."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Signals:
    """Set by SIGTERM and SIGINT (`stop`) and by SIGHUP (`reload`).

    A hangup of the terminal that the daemon was started on stops it: nobody is there any more. So
    does SIGHUP with `reloads` false. Where SIGHUP is ignored (`nohup`), it stays so.
    """

    reloads: bool
    stop: threading.Event = field(default_factory=threading.Event)
    reload: threading.Event = field(default_factory=threading.Event)
    _had_terminal: bool = field(default_factory=lambda: _on_terminal())

    def install(self) -> Callable[[], None]:
        """Handle the signals, in the main thread only.

        Returns:
            What puts the old handlers back. After a stop they stay: a second signal must not kill
            a process that is ending.
        """
        if threading.current_thread() is not threading.main_thread():
            return lambda: None
        handlers = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop}
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            handlers[signal.SIGHUP] = self._hang_up
        old = {number: signal.signal(number, handler) for number, handler in handlers.items()}

        def restore() -> None:
            if self.stop.is_set():
                return
            for number, handler in old.items():
                signal.signal(number, handler)

        return restore

    def _stop(self, _number: int, _frame: object) -> None:
        self.stop.set()

    def _hang_up(self, _number: int, _frame: object) -> None:
        terminal_gone = self._had_terminal and not _on_terminal()
        (self.reload if self.reloads and not terminal_gone else self.stop).set()


def _on_terminal() -> bool:
    """Whether stderr is a terminal that is still there."""
    try:
        return os.isatty(sys.__stderr__.fileno()) if sys.__stderr__ else False
    except (OSError, ValueError):
        return False
