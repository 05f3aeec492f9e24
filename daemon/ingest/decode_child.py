"""The decoding process: `python -m daemon.ingest.decode_child FD LIMITS`.

It receives open files over a UNIX socket (never paths), hashes and decodes them, and hands the
small pictures back. It is spawned, disposable and confined (daemon/ingest/sandbox.py); a picture
that crashes or hangs it costs this process and nothing else.

Protocol: request = 4-byte length, JSON, with the file descriptor as ancillary data; response =
two 4-byte lengths, JSON, payload (pixels of the encoder's input, then the grey PNG). The first
thing that the process says, unasked, is `confinement`: the kernel's limits that hold.
"""

import contextlib
import hashlib
import json
import os
import socket
import struct
import sys
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.fingerprint import perceptual_hash, pixel_digest
from daemon.ingest import sandbox
from daemon.ingest.exchange import SHORT_OF_MEMORY, receive
from daemon.ingest.picture import UnusablePictureError, decode
from daemon.signature import make_grey, pack_grey

READ_LIMIT_BYTES = 512 * 1024 * 1024
WHOLE = (65_535, 65_535)
"""Smallest useful (height, width) of a picture that must not be decoded at a fraction: no JPEG is
larger."""


def squeeze(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The whole picture at the encoder's size: area when shrinking, never cropped."""
    shrinking = picture.shape[0] >= height and picture.shape[1] >= width
    method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    resized = cv2.resize(picture, (width, height), interpolation=method)
    return np.ascontiguousarray(resized, dtype=np.uint8)


def read_and_hash(fd: int) -> tuple[bytes, bytes | None]:
    """The SHA-256 of the file and its bytes; None for a file too large to be a picture."""
    with os.fdopen(fd, "rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size <= READ_LIMIT_BYTES:
            with contextlib.suppress(MemoryError):
                data = file.read()
                while more := file.read():
                    data += more
                return hashlib.sha256(data).digest(), data
            file.seek(0)
        return hashlib.file_digest(file, "sha256").digest(), None


def fingerprint(picture: NDArray[np.uint8]) -> dict[str, Any]:
    """What tells copies of a picture decoded at its full size (daemon/fingerprint.py)."""
    bits = perceptual_hash(picture)
    return {
        "pixel_sha256": pixel_digest(picture).hex(),
        "perceptual_hash": None if bits is None else bits.hex(),
    }


def examine(fd: int, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Hash and decode one open file; a refusal is an answer, not an error."""
    try:
        digest, data = read_and_hash(fd)
    except OSError as exc:
        return {"unreadable": f"cannot be read now: {os.strerror(exc.errno or 0)}"}, b""
    answer: dict[str, Any] = {"sha256": digest.hex()}
    try:
        if data is None:
            raise UnusablePictureError("the file is too large to be a camera's picture")
        height, width = request["input_size"]
        wanted = WHOLE if request["fingerprint"] else (max(height, 320), max(width, 320))
        picture = decode(data, wanted=wanted, limit=request["pixels"])
        if request["fingerprint"]:
            answer |= fingerprint(picture.rgb)
        pixels = squeeze(picture.rgb, height, width)
        grey = pack_grey(make_grey(picture.rgb))
    except UnusablePictureError as exc:
        return answer | {"refused": str(exc)}, b""
    except (MemoryError, cv2.error):  # OpenCV's own error is one of memory for any decoded array
        return answer | {"refused": SHORT_OF_MEMORY}, b""
    except (PermissionError, ImportError) as exc:  # from bytes in memory: not the picture's fault
        return {"unreadable": f"the decoder lacks something here: {exc}"}, b""
    answer |= {
        "format": picture.format,
        "width": picture.width,
        "height": picture.height,
        "exif_time": picture.exif_time,
        "pixels": pixels.nbytes,
    }
    return answer, pixels.tobytes() + grey


def say(connection: socket.socket, answer: dict[str, Any], payload: bytes = b"") -> None:
    """Send one message."""
    text = json.dumps(answer).encode()
    connection.sendall(struct.pack("!II", len(text), len(payload)) + text)
    connection.sendall(payload)


def serve(connection: socket.socket) -> None:
    """Answer requests until the daemon closes the socket."""
    while True:
        head, fds, _flags, _address = socket.recv_fds(connection, 4, 1)
        if not head:
            return
        if len(head) < 4:
            rest = receive(connection, 4 - len(head))
            if rest is None:
                return
            head += rest
        body = receive(connection, struct.unpack("!I", head)[0])
        if body is None or not fds:
            return
        request = json.loads(body)
        sandbox.limit_time(request["seconds"])
        say(connection, *examine(fds[0], request))


def main() -> None:
    """Entry point of the process."""
    fd, memory_mb = int(sys.argv[1]), int(sys.argv[2])
    cv2.setNumThreads(1)
    with socket.socket(fileno=fd) as connection:
        sandbox.limit_resources(memory_mb)
        say(connection, {"confinement": sandbox.confine()})
        serve(connection)


if __name__ == "__main__":
    main()
