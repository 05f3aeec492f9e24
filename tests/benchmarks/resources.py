"""Memory and idle time of the daemon, the start of the commands, the way from file to row."""

import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.benchmarks.workload import (
    POLL_SECONDS,
    STEADY_SETTINGS,
    Daemon,
    Onlooker,
    children_of,
    usage,
    wait_until,
    write_settings,
)

COMMANDS: Final = (("status",), ("--help",))
STARTS: Final = 7
CALM_SECONDS: Final = 3.0
"""The daemon counts as idle when it had no other children than its decoders for this long."""
ARRIVALS_APART_SECONDS: Final = 1.0
EYE_SECONDS: Final = 0.01
"""Time between two looks at the database while latency is measured."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """MB and CPU share of the daemon alone, and of its children beside it."""

    taking_in_peak: float
    known_rss: float
    known_peak: float
    children_rss: float
    idle_cpu: float
    children_idle_cpu: float
    frames: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from a file's last change until an onlooker saw its row, less the settling."""

    above_settle: Sequence[float]

    def quantile(self, share: float) -> float:
        """The smallest value that at least this share of the files did not exceed."""
        ordered = sorted(self.above_settle)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def take_in(pictures: Path, state: Path, count: int) -> float:
    """Let a first daemon take in and sort every picture; its peak memory in MB."""
    shutil.rmtree(state, ignore_errors=True)
    write_settings(state, {"cameras": {"by_subfolder": True}})
    peak = 0.0
    with Daemon(state, pictures, "--once") as daemon:
        while daemon.process.poll() is None:
            try:
                peak = max(peak, usage(daemon.pid).peak)
            except (FileNotFoundError, KeyError):  # it has just ended
                break
            time.sleep(10 * POLL_SECONDS)
    onlooker = Onlooker(state)
    if not onlooker.all_recorded(count):
        raise SystemExit("the first run did not record every picture")
    onlooker.close()
    return peak


def footprint(pictures: Path, state: Path, count: int, idle_seconds: float) -> Footprint:
    """Memory with the frames known, and CPU time while nothing arrives."""
    taking_in_peak = take_in(pictures, state, count)
    with Daemon(state, pictures) as daemon:
        _wait_for_calm(daemon, state)
        children = children_of(daemon.pid)
        before = usage(daemon.pid)
        children_before = sum(usage(child).cpu for child in children)
        start = time.monotonic()
        wait_until(lambda: time.monotonic() - start >= idle_seconds, "the idle time is over")
        seconds = time.monotonic() - start
        after = usage(daemon.pid)
        children_after = [usage(child) for child in children]
    return Footprint(
        taking_in_peak=taking_in_peak,
        known_rss=after.rss,
        known_peak=after.peak,
        children_rss=sum(child.rss for child in children_after),
        idle_cpu=(after.cpu - before.cpu) / seconds,
        children_idle_cpu=(sum(c.cpu for c in children_after) - children_before) / seconds,
        frames=count,
    )


def _wait_for_calm(daemon: Daemon, state: Path) -> None:
    """Until the start's scan is over and the daemon has done nothing noticeable for a while."""
    onlooker = Onlooker(state)
    started = time.time()

    def scanned() -> bool:
        rows = onlooker.rows("SELECT min(last_scan_at) FROM cameras WHERE state <> 'inactive'")
        return bool(rows) and (rows[0][0] or 0) >= started - 1

    wait_until(scanned, "the folder was compared with the database", 60)
    onlooker.close()
    calm_since, spent = time.monotonic(), usage(daemon.pid).cpu

    def calm() -> bool:
        nonlocal calm_since, spent
        now = usage(daemon.pid).cpu
        if now - spent > 0.1:
            calm_since, spent = time.monotonic(), now
        return time.monotonic() - calm_since >= CALM_SECONDS

    wait_until(calm, "the daemon is calm", 300)


def starts(state: Path) -> dict[str, float]:
    """Best wall time in seconds of each of the everyday commands."""
    best: dict[str, float] = {}
    environment = dict(os.environ) | {"STILLWATCH_STATE": str(state)}
    for command in COMMANDS:
        seconds = []
        for _ in range(STARTS):
            start = time.perf_counter()
            subprocess.run(
                [Path(sys.executable).with_name("stillwatch"), *command],
                env=environment,
                capture_output=True,
                check=True,
            )
            seconds.append(time.perf_counter() - start)
        best["stillwatch " + " ".join(command)] = min(seconds)
    return best


def latency(pictures: Sequence[Path], scratch: Path, settle_seconds: float) -> Latency:
    """Deliver the pictures one a second into a watched folder; no job runs meanwhile."""
    state, folder = scratch / "state", scratch / "camera"
    shutil.rmtree(scratch, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = {key: value for key, value in STEADY_SETTINGS.items() if key != "cameras"}
    write_settings(state, {**settings, "ingest": {"settle_seconds": settle_seconds}})
    changed: dict[bytes, float] = {}
    seen: dict[bytes, float] = {}
    with Daemon(state, folder) as daemon:
        _wait_for_calm(daemon, state)
        onlooker = Onlooker(state)
        start = time.monotonic()
        while len(seen) < len(pictures):
            if len(changed) < len(pictures):
                due = start + len(changed) * ARRIVALS_APART_SECONDS
                if time.monotonic() >= due:
                    target = folder / f"frame_{len(changed):06d}.jpg"
                    target.write_bytes(pictures[len(changed)].read_bytes())
                    changed[os.fsencode(target.name)] = target.stat().st_ctime
            elif time.time() - max(changed.values()) > settle_seconds + 60:
                raise SystemExit(f"{len(changed) - len(seen)} delivered files were not recorded")
            _look(onlooker, seen)
            time.sleep(EYE_SECONDS)
        onlooker.close()
    return Latency([seen[name] - changed[name] - settle_seconds for name in changed])


def _look(onlooker: Onlooker, seen: dict[bytes, float]) -> None:
    """Note the time at which new rows are visible."""
    query = "SELECT path FROM frames WHERE stage <> 'pending' ORDER BY id DESC LIMIT 50"
    rows = onlooker.rows(query)
    now = time.time()
    for (path,) in rows:
        seen.setdefault(bytes(path), now)
