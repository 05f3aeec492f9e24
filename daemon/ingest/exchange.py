"""What the daemon and its decoding processes share; the daemon imports no picture decoder."""

import socket


def receive(connection: socket.socket, count: int) -> bytes | None:
    """Exactly `count` bytes, or None at the end of the stream."""
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)
