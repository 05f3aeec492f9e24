"""One decoding process, seen from the daemon: spawned, asked, and ended when it misbehaves.

Whatever it sends is checked: a picture may have taken the process over.
"""

import json
import os
import socket
import struct
import subprocess
import sys
import time
from typing import Final

from daemon.ingest.exchange import receive, remaining
from daemon.settings import IngestSettings

NICE: Final = 10
"""Steps below the daemon's priority: decoding runs ahead, in the gaps that the network leaves. At
the same priority it takes turns with the network's threads, which wait for each other many times a
picture; measured on two cores, 195 pictures a second became 225."""
CHILD_MODULE: Final = "daemon.ingest.decode_child"
START_SECONDS: Final = 60.0
"""For its imports, on a busy machine with a slow card; not a part of any file's time."""
_MOST_WORDS: Final = 65_536
_MOST_GREY: Final = 1_048_576
"""Bytes of an honest answer's JSON, and of its grey PNG: what a subverted process may cost us."""


class ChildFailedError(Exception):
    """The decoding process died or took too long over a file."""


class DecoderStartError(ChildFailedError):
    """A decoding process does not start, which is no file's fault."""


class DecodeChild:
    """One decoding process and the socket to it."""

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = settings
        self._confinement: list[str] | None = None
        self.asked = 0
        """Files that it was given."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        environment = dict(os.environ) | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    CHILD_MODULE,
                    str(theirs.fileno()),
                    str(settings.decode_memory_mb),
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        self._socket = ours
        nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
        os.setpriority(os.PRIO_PROCESS, self._process.pid, nice)

    @property
    def pid(self) -> int:
        """Process id, for `status` and for tests that kill it."""
        return self._process.pid

    def ask(
        self, fd: int, input_size: tuple[int, int], *, fingerprint: bool = False
    ) -> tuple[dict[str, object], bytes]:
        """Let the child examine an open file.

        Args:
            fd: The file.
            input_size: (height, width) of the pixels that are handed back.
            fingerprint: Decode at full size, and tell pixel digest and perceptual hash.

        Raises:
            ChildFailedError: It died or exceeded `decode_seconds`; it is dead afterwards.
            DecoderStartError: It did not even start.
        """
        self.confinement()
        self.asked += 1
        seconds = self._settings.decode_seconds
        request = {
            "input_size": input_size,
            "pixels": int(self._settings.max_megapixels * 1_000_000),
            "fingerprint": fingerprint,
            "seconds": seconds,
        }
        body = json.dumps(request).encode()
        try:
            until = time.monotonic() + seconds
            self._socket.settimeout(remaining(until))
            socket.send_fds(self._socket, [struct.pack("!I", len(body))], [fd])
            self._socket.sendall(body)
            found = self._hear(until, 3 * input_size[0] * input_size[1] + _MOST_GREY)
        except TimeoutError as exc:
            self.close()
            raise ChildFailedError(f"decoding it takes longer than {seconds:g} s") from exc
        except OSError as exc:
            self.close()
            raise ChildFailedError("the decoder crashed on it") from exc
        except (ValueError, RecursionError) as exc:
            self.close()
            raise ChildFailedError("the decoder gave a senseless answer to it") from exc
        if found is None:
            self.close()
            raise ChildFailedError("the decoder crashed on it")
        return found

    def confinement(self) -> list[str]:
        """Wait until the process is ready.

        Returns:
            Which of the kernel's limits hold for it (daemon/ingest/sandbox.py).

        Raises:
            DecoderStartError: It ended, or was not ready within `START_SECONDS`.
        """
        if self._confinement is None:
            try:
                found = self._hear(time.monotonic() + START_SECONDS, 0)
                held = None if found is None else found[0]["confinement"]
            except (OSError, ValueError, KeyError) as exc:
                self.close()
                raise DecoderStartError("the decoding process does not start") from exc
            if not isinstance(held, list):
                self.close()
                raise DecoderStartError("the decoding process does not start")
            self._confinement = [str(name) for name in held]
        return self._confinement

    def _hear(self, until: float, most_payload: int) -> tuple[dict[str, object], bytes] | None:
        """The next thing that the process says; None when it has ended.

        Raises:
            TimeoutError: It takes too long.
            OSError: The socket is broken.
            ValueError: What came is nothing that an honest process says.
        """
        head = receive(self._socket, 8, until)
        if head is None:
            return None
        words, length = struct.unpack("!II", head)
        if words > _MOST_WORDS or length > most_payload:
            raise ValueError("more than any answer needs")
        text, payload = receive(self._socket, words, until), receive(self._socket, length, until)
        if text is None or payload is None:
            return None
        answer = json.loads(text)
        if not isinstance(answer, dict):
            raise ValueError("no object")
        return answer, payload

    def close(self) -> None:
        """End the process; safe to call twice."""
        self._socket.close()
        self._process.kill()
        self._process.wait()
