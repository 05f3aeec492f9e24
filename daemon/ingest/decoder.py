"""The pool of decoding processes: settled files in, decoded pictures or refusals out.

Children are spawned, never forked (daemon/ingest/decode_process.py). One thread here serves one
child. A child that crashes or takes too long is replaced; a file that does so three times is
refused, and nothing else is harmed.
"""

import errno
import logging
import os
import queue
import stat
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import numpy as np

from daemon.ingest.decode_process import ChildFailedError, DecodeChild, DecoderStartError
from daemon.ingest.exchange import SHORT_OF_MEMORY
from daemon.ingest.sandbox import KERNEL_LIMITS
from daemon.ingest.settling import stat_key
from daemon.messages import DecodedImage, RefusedFile, SettledFile
from daemon.settings import IngestSettings

log = logging.getLogger(__name__)

STRIKES: Final = 3
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OWN_FAULTS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

DecodeResult = DecodedImage | RefusedFile


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
        self._given_at: dict[int, float] = {}
        """Thread -> when its child was given the file in hand, by the monotonic clock."""
        self._stopping = False
        self._told = False
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

    def silent_seconds(self) -> float:
        """For how long a file in hand has waited for its child; 0 where none is in hand.

        A child that hangs is killed after `decode_seconds`, so more than that is a stall.
        """
        now = time.monotonic()
        return max((now - since for since in list(self._given_at.values())), default=0.0)

    def close(self, *, discard: bool = False) -> None:
        """Finish what is queued, then end the threads and processes.

        Args:
            discard: Finish only what is in hand; a hanging file is not tried again. What is left
                stays pending in the database.
        """
        if discard:
            self._stopping = True
            self._drop_queued()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _drop_queued(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
                with self._lock:
                    self._busy -= 1

    def _work(self) -> None:
        child = self._start_child()
        while (file := self._queue.get()) is not None:
            result: DecodeResult | None
            try:
                result, child = self._decode(file, child)
            except Exception:  # the one broad handler of this loop: the file stays pending
                log.exception("decoding of a file failed unexpectedly")
                result = RefusedFile(
                    file=file, reason="an internal error, see the log", final=False
                )
            if result is not None:
                self._deliver(result)
            with self._lock:
                self._busy -= 1
        if child is not None:
            child.close()

    def _start_child(self) -> DecodeChild | None:
        try:
            return DecodeChild(self._settings)
        except OSError as exc:  # no memory or process to spare just now; the next file tries again
            log.warning("a decoding process could not be started: %s", exc)
            return None

    def _ready(self, child: DecodeChild | None) -> DecodeChild | None:
        """A process that has finished starting, the given one or a new one; None: it cannot."""
        child = child or self._start_child()
        if child is None:
            return None
        try:
            held = child.confinement()
        except DecoderStartError:
            log.warning("a decoding process ended before it was ready, see `stillwatch doctor`")
            return None
        missing = [name for name in KERNEL_LIMITS if name not in held]
        if missing and not self._told:
            self._told = True
            log.warning("decoding processes are not confined by %s here", " and ".join(missing))
        return child

    def _decode(
        self, file: SettledFile, child: DecodeChild | None
    ) -> tuple[DecodeResult | None, DecodeChild | None]:
        """The outcome, None when the pool is being stopped; and the child that goes on."""
        reason = ""
        for _strike in range(STRIKES):
            child = self._ready(child)
            if child is None:
                return _unreadable(file, "the decoding process does not start"), None
            self._given_at[threading.get_ident()] = time.monotonic()
            try:
                return self._decode_once(file, child), child
            except ChildFailedError as exc:
                reason = str(exc)
                child = None
                if self._stopping:
                    return None, None
            finally:
                self._given_at.pop(threading.get_ident(), None)
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
        if answer.get("refused") == SHORT_OF_MEMORY and child.asked > 1:
            # Pictures before it may have used the room up: only a fresh process is a fair judge.
            child.close()
            raise ChildFailedError(SHORT_OF_MEMORY)
        try:
            return _interpret(file, answer, payload, size)
        except (KeyError, ValueError) as exc:
            child.close()
            raise ChildFailedError("the decoder gave a senseless answer to it") from exc


def _interpret(
    file: SettledFile, answer: dict[str, object], payload: bytes, size: tuple[int, int]
) -> DecodeResult:
    """The result in a child's answer.

    Raises:
        KeyError, ValueError: It is no such answer.
    """
    if "unreadable" in answer:
        return _unreadable(file, str(answer["unreadable"]))
    digest = bytes.fromhex(str(answer["sha256"]))
    if "refused" in answer:
        return RefusedFile(file=file, reason=str(answer["refused"]), final=True, sha256=digest)
    split = int(str(answer["pixels"]))
    pixels = np.frombuffer(payload[:split], dtype=np.uint8).reshape(*size, 3)
    time_text = answer["exif_time"]
    return DecodedImage(
        file=file,
        sha256=digest,
        format=str(answer["format"]),
        width=int(str(answer["width"])),
        height=int(str(answer["height"])),
        pixels=pixels,
        grey=payload[split:],
        exif_time=None if time_text is None else str(time_text),
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
