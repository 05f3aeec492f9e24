"""Lists, prepares and loads encoders; imports neither TensorFlow nor Keras."""

import json
import logging
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO

from daemon.encoders.base import ENTRY_POINT_GROUP, Encoder, EncoderInfo, EncoderProvider
from daemon.encoders.cache import all_records, checked_model, default_cache_dir
from storage.errors import EncoderError, EncoderNotPreparedError, UsageError

__all__ = [
    "EncoderStatus",
    "default_cache_dir",
    "is_prepared",
    "list_encoders",
    "load",
    "prepare",
    "provider_of",
]

logger = logging.getLogger(__name__)

_BUILT_IN = {
    "efficientnet_lite0": "daemon.encoders.efficientnet_lite",
    "keras": "daemon.encoders.keras_applications",
    "file": "daemon.encoders.model_file",
}
"""The program's own entry points, so that they work in a checkout that is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderStatus:
    """An encoder that can be used; `space` is None until it is prepared."""

    info: EncoderInfo
    prepared: bool
    space: str | None


def list_encoders(cache_dir: Path) -> list[EncoderStatus]:
    """Every encoder the providers offer, then those that were prepared from files."""
    records = {record.id: record for record in all_records(cache_dir)}
    offered = [info for provider in _providers() for info in provider.offers()]
    known = {info.id for info in offered}
    infos = offered + [record.info for record in records.values() if record.id not in known]
    statuses = []
    for info in infos:
        prepared = is_prepared(info.id, cache_dir)
        space = records[info.id].space if prepared else None
        statuses.append(EncoderStatus(info=info, prepared=prepared, space=space))
    return statuses


def is_prepared(encoder_id: str, cache_dir: Path) -> bool:
    """Whether `load` would succeed; reads and hashes the converted network.

    Raises:
        UsageError: There is no such encoder.
    """
    try:
        checked_model(cache_dir, encoder_id, provider_of(encoder_id).expected_sha256(encoder_id))
    except EncoderNotPreparedError:
        return False
    return True


def load(encoder_id: str, cache_dir: Path, threads: int) -> Encoder:
    """Open a prepared encoder.

    Args:
        encoder_id: As in the settings.
        cache_dir: Where it was prepared into.
        threads: Inference threads.

    Raises:
        UsageError: There is no such encoder.
        EncoderNotPreparedError: Not prepared yet, damaged, or prepared from other weights.
        EncoderError: LiteRT cannot run it.
    """
    expected = provider_of(encoder_id).expected_sha256(encoder_id)
    record, model = checked_model(cache_dir, encoder_id, expected)
    from daemon.encoders.litert import LiteRTEncoder  # 0.2 s, not needed for listing

    return LiteRTEncoder(record, model, threads)


def prepare(encoder_id: str, cache_dir: Path, progress: Callable[[str, int, int], None]) -> None:
    """Build and convert an encoder in a child process; at once where that is done already.

    Args:
        encoder_id: As in the settings.
        cache_dir: Receives the converted network; made if absent.
        progress: Called with stage, steps done, steps in all.

    Raises:
        UsageError: There is no such encoder.
        EncoderError: It failed, with the child's reason.
    """
    if is_prepared(encoder_id, cache_dir):
        return
    command = [sys.executable, "-m", "daemon.encoders.prepare_child", encoder_id]
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [*command, str(cache_dir.absolute())], stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            failure = _follow(child, progress)
            code = child.wait()
        finally:
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
        if failure is not None:
            raise failure
        if code != 0:
            raise _crashed(encoder_id, code, errors)


def _follow(
    child: "subprocess.Popen[str]", progress: Callable[[str, int, int], None]
) -> EncoderError | None:
    """Pass the child's progress on; returns the failure it reported, if any."""
    failure = None
    for line in child.stdout or ():
        message = json.loads(line)
        if "error" in message:
            error = message["error"]
            failure = EncoderError(error["summary"], hint=error["hint"], path=error["path"])
        else:
            progress(message["stage"], message["done"], message["total"])
    return failure


def _crashed(encoder_id: str, code: int, errors: IO[bytes]) -> EncoderError:
    """The error for a child that ended without a reason; its last line may tell one."""
    errors.seek(0)
    lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    reason = signal.strsignal(-code) if code < 0 else (lines[-1] if lines else f"exit code {code}")
    hint = "About 1.5 GB of free memory are needed." if code == -signal.SIGKILL else ""
    return EncoderError(f"Preparing the encoder {encoder_id} failed: {reason}.", hint=hint)


def provider_of(encoder_id: str) -> EncoderProvider:
    """The provider that builds this encoder.

    Raises:
        UsageError: No provider knows the id.
    """
    for provider in _providers():
        if provider.handles(encoder_id):
            return provider
    raise UsageError(f"There is no encoder {encoder_id}.", hint="`stillwatch encoders` lists them.")


@cache
def _providers() -> tuple[EncoderProvider, ...]:
    """The built-in providers, then those of other installed packages."""
    return (*_built_in(), *_installed())


def _built_in() -> Iterator[EncoderProvider]:
    for module in _BUILT_IN.values():
        provider: EncoderProvider = import_module(module).provider
        yield provider


def _installed() -> Iterator[EncoderProvider]:
    """Providers of other packages; one that cannot be loaded must not stop the daemon."""
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.module in _BUILT_IN.values():
            continue
        try:
            provider = entry.load()
        except Exception:
            logger.exception("The encoder plug-in %s cannot be loaded.", entry.name)
            continue
        if isinstance(provider, EncoderProvider):
            yield provider
        else:
            logger.error("The encoder plug-in %s is not an EncoderProvider.", entry.name)
