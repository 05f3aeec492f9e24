"""Another program holds the database's write lock while pictures arrive: no event is lost.

`python -m tests.faults.locked_database --seconds 70 [--files N]` starts a real daemon in a
temporary folder; longer than 60 s is longer than any write waits. Exit code 1: a file was lost.
"""

import argparse
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from storage.database_file import DATABASE_NAME
from tests.end_to_end.process import Daemon, Site, decided, fill, picture


def deliver_while_locked(
    site: Site, daemon: Daemon, *, seconds: float, files: int
) -> dict[str, int]:
    """Deliver files spread over the time of the lock; what came of them."""
    known = site.status()["frames"]["total"]
    lock = sqlite3.connect(site.state / DATABASE_NAME, isolation_level=None, timeout=30)
    lock.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    try:
        for number in range(files):
            fill(site.folder, {f"locked/p{number:04d}.jpg": picture(1000 + number)})
            left = began + seconds * (number + 1) / files - time.monotonic()
            time.sleep(max(0.0, left))  # the length of the lock is what is tested
        meanwhile = site.status()["frames"]["total"] - known
    finally:
        lock.execute("ROLLBACK")
        lock.close()
    daemon.wait_until(decided(site, known + files), "everything is recorded", seconds + 120)
    recorded = site.status()["frames"]["total"] - known
    return {
        "delivered": files,
        "recorded while locked": meanwhile,
        "recorded": recorded,
        "lost": files - recorded,
    }


def main() -> int:
    """Run it in full size and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=70.0, help="length of the lock")
    parser.add_argument("--files", type=int, default=100, help="pictures delivered meanwhile")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        with site.daemon() as daemon:
            sys.stderr.write(f"the database is locked for {options.seconds:g} s\n")
            figures = deliver_while_locked(
                site, daemon, seconds=options.seconds, files=options.files
            )
        site.verify()
    for name, value in {**figures, "seconds": round(time.monotonic() - began)}.items():
        sys.stdout.write(f"{name:24}{value}\n")
    return 1 if figures["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
