"""The wall clock of a running daemon jumps: by ten years ahead, back, and to 1970.

The clock is shifted in the daemon's own calls (tests/faults/injection.py); the machine's stays.
"""

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.end_to_end.process import Site, decided, facts, fill, wait_until, yard
from tests.faults.injection import Faults, missing

YEARS = 365 * 86400.0
SETTINGS: dict[str, dict[str, Any]] = {
    "ingest": {"settle_seconds": 0.2},
    "dedup": {"delay_seconds": 0.2, "every_seconds": 1.0},
    "prune": {"enabled": True, "brake_share": 0.99, "max_share_per_day": 0.99},
}

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture
def faults(tmp_path: Path) -> Iterator[Faults]:
    with Faults(tmp_path / "faults.page") as page:
        yield page


def round_at(site: Site) -> float:
    """When the last round of dedup, filing and prune was over, by the daemon's clock."""
    rows = site.table("SELECT value FROM meta WHERE key = 'dedup_round'")
    return float(json.loads(rows[0][0])["at"]) if rows else 0.0


def two_rounds(site: Site, clock: float) -> None:
    """Two more rounds end at a clock that is shifted so far."""
    seen: set[float] = set()

    def ended() -> bool:
        at = round_at(site)
        if abs(at - (time.time() + clock)) < 3600:
            seen.add(at)
        return len(seen) >= 2

    wait_until(ended, f"two rounds at a clock shifted by {clock:.0f} s")


def test_jobs_go_on_and_nothing_is_pruned_at_whatever_clock(site: Site, faults: Faults) -> None:
    site.write_settings({**SETTINGS, "prune": {}})
    fill(site.folder, {f"yard-{index:02d}.jpg": yard(index) for index in range(24)})
    assert site.once()["frames"]["near_duplicate"] >= 10
    site.cli("prune", "--now", "--yes")
    site.cli("restore", trashed(site)[0], "--yes")
    site.write_settings(SETTINGS)
    before = facts(site.folder)
    with site.daemon(environment=faults.environment()) as daemon:
        two_rounds(site, 0.0)
        memory = psutil.Process(daemon.process.pid).memory_info().rss
        for number, shift in enumerate((-86400.0, 10 * YEARS, -10 * YEARS, -time.time())):
            faults.shift_clock(shift)
            two_rounds(site, shift)
            fill(site.folder, {f"{'abcd'[number]}.jpg": yard(24 + number)})
            daemon.wait_until(decided(site, 25 + number), "it records under this clock")
        grown = psutil.Process(daemon.process.pid).memory_info().rss - memory
        assert grown < 200e6, "no list of the runs that ten years would have had"
        assert "set back by" in daemon.said
        asked = site.cli("prune", "--yes", "--json").json()
        assert (asked["trashed"], asked["deleted"]) == (0, 0)
        assert "not trusted" in asked["notes"][0]
    now = facts(site.folder)
    assert {name: now[name] for name in before} == before
    for row in site.rows()[24:]:
        taken = datetime.fromisoformat(row["captured_at"]).timestamp()
        assert taken == pytest.approx((site.folder / row["path"]).stat().st_mtime, abs=1.0)
    site.verify()


def trashed(site: Site) -> list[str]:
    return [row["id"] for row in site.rows() if row["state"] == "trashed"]
