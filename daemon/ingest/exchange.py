"""What the daemon and its decoding processes share; the daemon imports no picture decoder."""

import socket
import time
from typing import Final

SHORT_OF_MEMORY: Final = "decoding it needs more memory than allowed"
"""What a decoding process says of a picture for which it found no room."""


def receive(connection: socket.socket, count: int, until: float | None = None) -> bytes | None:
    """Exactly `count` bytes, or None at the end of the stream.

    Args:
        connection: The socket.
        count: Bytes.
        until: Monotonic time by which all of them must be there; None waits as the socket does.

    Raises:
        TimeoutError: They came too late, however busily.
    """
    parts = bytearray()
    while len(parts) < count:
        if until is not None:
            connection.settimeout(remaining(until))
        part = connection.recv(count - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)


def remaining(until: float) -> float:
    """Seconds up to a monotonic time.

    Raises:
        TimeoutError: It has passed.
    """
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds
