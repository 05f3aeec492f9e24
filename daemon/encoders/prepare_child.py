"""Builds and converts one encoder: `python -m daemon.encoders.prepare_child ID CACHE_DIR`.

The only process that imports TensorFlow (about 1.4 GB for ten seconds), so it is a child that
ends. It writes JSON lines to its standard output: `{"stage", "done", "total"}`, and on failure
`{"error": {"code", "summary", "hint", "path"}}` with exit code 1.
"""

import fcntl
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from daemon.encoders.cache import folder_of
from storage.errors import EncoderError, StillwatchError

_DOWNLOAD_TIMEOUT_SECONDS = 60.0


def main(arguments: list[str]) -> int:
    """Prepare the encoder; returns the exit code."""
    encoder_id, cache_dir = arguments[0], Path(arguments[1])
    channel = _take_stdout()

    def send(message: dict[str, object]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    try:
        _prepare(
            encoder_id,
            cache_dir,
            lambda stage, done, total: send({"stage": stage, "done": done, "total": total}),
        )
    except StillwatchError as exc:
        send({"error": exc.as_json()})
        return 1
    except OSError as exc:
        reason = exc.strerror or str(exc)
        failure = EncoderError(
            f"The encoder cannot be prepared: {reason}.", path=str(exc.filename or cache_dir)
        )
        send({"error": failure.as_json()})
        return 1
    return 0


def _take_stdout() -> TextIO:
    """Keep the real standard output for messages; whatever libraries print goes to stderr."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def _prepare(encoder_id: str, cache_dir: Path, progress: Callable[[str, int, int], None]) -> None:
    """Build, convert and cache, unless another process has just done so."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_SECONDS)
    from daemon.encoders import registry
    from daemon.encoders.convert import STEPS, convert

    cache_dir.mkdir(parents=True, exist_ok=True)
    folder = folder_of(cache_dir, encoder_id)
    with folder.with_name(f"{folder.name}.lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if not registry.is_prepared(encoder_id, cache_dir):
            progress(STEPS[0], 0, len(STEPS))
            network = registry.provider_of(encoder_id).build(encoder_id)
            convert(network, cache_dir, progress)
        progress("ready", len(STEPS), len(STEPS))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
