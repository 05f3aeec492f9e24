"""Jobs with an interval come in time although the daemon is started again and again."""

import time

from storage import meta
from storage.engine import Database
from tests.end_to_end.process import Site, decided, fill, picture

HOUR = 3600.0
INTERVAL = 40.0
SETTINGS: dict[str, dict[str, object]] = {
    "ingest": {"settle_seconds": 0.2},
    "clustering": {"first_at_frames": 10_000, "nightly_at": "03:10"},
    "dedup": {"delay_seconds": 0.1, "every_seconds": INTERVAL},
}
ROUND = "SELECT json_extract(value, '$.at') FROM meta WHERE key = 'dedup_round'"


def waited(site: Site) -> float:
    """Since when the next round of dedup counts."""
    return float(site.table(ROUND)[0][0])


def test_an_interval_goes_on_over_kills_and_an_overdue_round_comes_soon(site: Site) -> None:
    site.write_settings(SETTINGS)
    fill(site.folder, {f"{number}.jpg": picture(number % 5) for number in range(10)})
    with site.daemon() as daemon:
        daemon.wait_until(decided(site, 10), "all are recorded")
        begun = waited(site)
        daemon.kill()
    with site.daemon() as daemon:
        assert waited(site) == begun, "a start does not begin the interval anew"
        daemon.kill()
    assert site.status()["last_dedup"] is None
    database = Database(site.state)
    with database.write() as connection:
        meta.put(connection, "dedup_round", {"at": time.time() - HOUR})
    database.close()
    with site.daemon() as daemon:
        daemon.wait_until(
            lambda: site.status()["last_dedup"], "the overdue round is made", 0.8 * INTERVAL
        )
        daemon.wait_until(lambda: waited(site) > time.time() - INTERVAL, "its end is noted")
