"""The pool of decoding processes: settled files in, decoded pictures or refusals out.

Children are spawned, never forked, and started as `python -m daemon.ingest.decode_child`. One
thread here serves one child. A child that crashes or takes too long is replaced; a file that does
so three times is refused, and nothing else is harmed.
"""

import errno
import json
import logging
import os
import queue
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from daemon.ingest.exchange import receive
from daemon.ingest.settling import stat_key
from daemon.messages import DecodedImage, RefusedFile, SettledFile
from daemon.settings import IngestSettings

log = logging.getLogger(__name__)

STRIKES: Final = 3
NICE: Final = 10
"""Steps below the daemon's priority: decoding runs ahead, in the gaps that the network leaves. At
the same priority it takes turns with the network's threads, which wait for each other many times a
picture; measured on two cores, 195 pictures a second became 225."""
CHILD_MODULE: Final = "daemon.ingest.decode_child"
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OWN_FAULTS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

DecodeResult = DecodedImage | RefusedFile


class ChildFailedError(Exception):
    """The decoding process died or took too long over a file."""


class DecodeChild:
    """One decoding process and the socket to it."""

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = settings
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.settimeout(settings.decode_seconds)
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
        """
        request = {
            "input_size": input_size,
            "pixels": int(self._settings.max_megapixels * 1_000_000),
            "fingerprint": fingerprint,
        }
        body = json.dumps(request).encode()
        try:
            socket.send_fds(self._socket, [struct.pack("!I", len(body))], [fd])
            self._socket.sendall(body)
            head = receive(self._socket, 8)
            if head is None:
                raise ChildFailedError("the decoder crashed on it")
            lengths = struct.unpack("!II", head)
            text = receive(self._socket, lengths[0])
            payload = receive(self._socket, lengths[1])
        except TimeoutError as exc:
            self.close()
            seconds = self._settings.decode_seconds
            raise ChildFailedError(f"decoding it takes longer than {seconds:g} s") from exc
        except OSError as exc:
            self.close()
            raise ChildFailedError("the decoder crashed on it") from exc
        except ChildFailedError:
            self.close()
            raise
        if text is None or payload is None:
            self.close()
            raise ChildFailedError("the decoder crashed on it")
        return json.loads(text), payload

    def close(self) -> None:
        """End the process; safe to call twice."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


class DecodePool:
    """Decoding processes with a bounded queue in front of them.

    `roots` gives the path of each camera's root. `deliver` is called from
    the pool's threads and may block: that is the back-pressure. `fingerprints`: see
    `DecodeChild.ask`.
    """

    def __init__(
        self,
        settings: IngestSettings,
        input_size: tuple[int, int],
        roots: Mapping[int, bytes],
        deliver: Callable[[DecodeResult], None],
        *,
        fingerprints: bool = False,
    ) -> None:
        self._settings = settings
        self._fingerprints = fingerprints
        self._input_size = input_size
        self._roots = roots
        self._deliver = deliver
        self._queue: queue.Queue[SettledFile | None] = queue.Queue(maxsize=64)
        self._busy = 0
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, name=f"decode-{number}")
            for number in range(settings.decode_children)
        ]

    def start(self) -> None:
        """Start the threads and their processes, so that the first file need not wait for one."""
        for thread in self._threads:
            thread.start()

    def try_put(self, file: SettledFile) -> bool:
        """Hand in a file; False when the queue is full."""
        with self._lock:
            try:
                self._queue.put_nowait(file)
            except queue.Full:
                return False
            self._busy += 1
        return True

    def set_input_size(self, size: tuple[int, int]) -> None:
        """Squeeze pictures to another (height, width) from the next file on."""
        self._input_size = size

    @property
    def pending(self) -> int:
        """Files handed in and not yet delivered."""
        with self._lock:
            return self._busy

    def close(self) -> None:
        """Finish what is queued, then end the threads and processes."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _work(self) -> None:
        child = self._start_child()
        while (file := self._queue.get()) is not None:
            try:
                result, child = self._decode(file, child)
            except Exception:  # the one broad handler of this loop: the file stays pending
                log.exception("decoding of a file failed unexpectedly")
                result = RefusedFile(
                    file=file, reason="an internal error, see the log", final=False
                )
            self._deliver(result)
            with self._lock:
                self._busy -= 1
        if child is not None:
            child.close()

    def _start_child(self) -> DecodeChild | None:
        try:
            return DecodeChild(self._settings)
        except OSError:  # no memory or process to spare just now; the first file tries again
            log.warning("a decoding process could not be started", exc_info=True)
            return None

    def _decode(
        self, file: SettledFile, child: DecodeChild | None
    ) -> tuple[DecodeResult, DecodeChild | None]:
        reason = ""
        for _strike in range(STRIKES):
            if child is None:
                child = DecodeChild(self._settings)
            try:
                return self._decode_once(file, child), child
            except ChildFailedError as exc:
                reason = str(exc)
                child = None
        return RefusedFile(file=file, reason=f"{reason} ({STRIKES} times)", final=True), child

    def _decode_once(self, file: SettledFile, child: DecodeChild) -> DecodeResult:
        path = os.path.join(self._roots[file.camera_id], file.path)
        try:
            fd = os.open(path, _OPEN_FLAGS)
        except OSError as exc:
            if exc.errno in _OWN_FAULTS:
                return RefusedFile(file=file, reason="vanished", final=False)
            return _unreadable(file, _os_reason(exc))
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return RefusedFile(file=file, reason="no regular file", final=True)
            if stat_key(status) != file.stat:
                return RefusedFile(file=file, reason="changing", final=False)
            size = self._input_size  # another encoder may come while the child works
            answer, payload = child.ask(fd, size, fingerprint=self._fingerprints)
            if stat_key(os.fstat(fd)) != file.stat:
                return RefusedFile(file=file, reason="changing", final=False)
        except OSError as exc:
            return _unreadable(file, _os_reason(exc))
        finally:
            os.close(fd)
        return self._interpret(file, answer, payload, size)

    def _interpret(
        self, file: SettledFile, answer: dict[str, object], payload: bytes, size: tuple[int, int]
    ) -> DecodeResult:
        if "unreadable" in answer:
            return _unreadable(file, str(answer["unreadable"]))
        digest = bytes.fromhex(str(answer["sha256"]))
        if "refused" in answer:
            return RefusedFile(file=file, reason=str(answer["refused"]), final=True, sha256=digest)
        split = int(str(answer["pixels"]))
        pixels = np.frombuffer(payload[:split], dtype=np.uint8).reshape(*size, 3)
        time = answer["exif_time"]
        return DecodedImage(
            file=file,
            sha256=digest,
            format=str(answer["format"]),
            width=int(str(answer["width"])),
            height=int(str(answer["height"])),
            pixels=pixels,
            grey=payload[split:],
            exif_time=None if time is None else str(time),
            pixel_sha256=_from_hex(answer.get("pixel_sha256")),
            perceptual_hash=_from_hex(answer.get("perceptual_hash")),
        )


def _from_hex(text: object) -> bytes | None:
    return None if text is None else bytes.fromhex(str(text))


def _unreadable(file: SettledFile, reason: str) -> RefusedFile:
    return RefusedFile(file=file, reason=reason, final=False, unreadable=True)


def _os_reason(exc: OSError) -> str:
    """Why a file cannot be examined now, in plain words."""
    if exc.errno in (errno.EACCES, errno.EPERM):
        return "no permission to read it"
    return f"cannot be read now: {os.strerror(exc.errno or 0)}"
