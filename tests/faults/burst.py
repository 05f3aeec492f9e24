"""More files at once than the kernel can tell of: the daemon stands still meanwhile, none is lost.

    python -m tests.faults.burst --files 20000

Ends with 1 when a file has no row with its content, or when `verify` finds something.
"""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.end_to_end.process import Daemon, Site, picture, sha256

QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")
SETTINGS: dict[str, dict[str, object]] = {
    "ingest": {"settle_seconds": 0.2, "rescan_seconds": 3000.0},
    "clustering": {"first_at_frames": 1_000_000, "first_after_seconds": 1e6},
}
LOOK_SECONDS = 2.0


def deliver(site: Site, daemon: Daemon, count: int) -> dict[str, str]:
    """Write the files while the daemon stands still; digests by path."""
    shots = {f"{number // 500:03d}/{number:06d}.jpg": number for number in range(count)}
    (site.folder / "list.csv").touch()  # ignored; its folder is watched
    digests = {}
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        for name, number in shots.items():
            data = picture(number)
            digests[name] = sha256(data)
            path = site.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    return digests


def watch(site: Site, count: int, limit: float) -> tuple[float, str]:
    """Wait for the rows; seconds it took and what the camera's state told last."""
    began, told = time.monotonic(), ""
    while time.monotonic() - began < limit:
        found = site.status()
        told = str(found["cameras"][0]["reason"] or told)
        done = found["frames"]["total"] - found["frames"]["pending"]
        print(f"\r{done} of {count} recorded, {time.monotonic() - began:.0f} s", end="", flush=True)
        if done >= count:
            break
        time.sleep(LOOK_SECONDS)
    print()
    return time.monotonic() - began, told


def run(base: Path, count: int, limit: float) -> int:
    """One burst; the number of files that were lost."""
    site = Site(base, SETTINGS)
    for number in range((count + 499) // 500):  # watched: their files' events fill the queue
        (site.folder / f"{number:03d}").mkdir()
    with site.daemon() as daemon:
        delivered = deliver(site, daemon, count)
        seconds, told = watch(site, count, limit)
    recorded = {row["path"]: row["sha256"] for row in site.rows()}
    lost = len([name for name, digest in delivered.items() if recorded.get(name) != digest])
    verified = site.cli("verify", "--json", timeout=3600).code == 0
    for label, value in (
        ("events that the kernel keeps", QUEUE.read_text().strip()),
        ("files delivered", count),
        ("files recorded with their content", count - lost),
        ("files lost", lost),
        ("rows too many", len(recorded) - count),
        ("seconds until all were recorded", f"{seconds:.0f}"),
        ("the camera's state told", told or "-"),
        ("verify", "ok" if verified else "VIOLATIONS"),
    ):
        print(f"{label:36} {value}")
    return lost if verified else max(lost, 1)


def main() -> int:
    """Parse the command line and run it in a folder of its own."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.burst", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds to wait at most")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stillwatch-burst-") as base:
        return 1 if run(Path(base), given.files, given.limit) else 0


if __name__ == "__main__":
    sys.exit(main())
