"""A big run of files is killed in the middle and goes on; no recluster runs beside it (case 38).

STILLWATCH_BATCH=500 gives it the size of that case.
"""

import os
import signal
from functools import partial

from tests.end_to_end.process import (
    Site,
    facts,
    fill,
    picture,
    reached,
)
from tests.end_to_end.test_recluster_kill import start_recluster

VIEWS, FILES = 20, int(os.environ.get("STILLWATCH_BATCH", "150"))
OPEN = "SELECT count(*) FROM journal WHERE state = 'intent'"
DONE = "SELECT count(*) FROM journal WHERE state = 'done'"
QUEUED = "SELECT 1 FROM requests WHERE state = 'queued'"
UNANSWERED = "SELECT 1 FROM requests WHERE state <> 'done'"
NEWEST = "SELECT max(id) FROM journal"
PUBLISHED = "SELECT created_at FROM runs WHERE kind = 'recluster' ORDER BY id DESC LIMIT 1"


def count(site: Site, sql: str) -> int:
    return int(site.table(sql)[0][0])


def test_a_batch_is_resumed_and_no_recluster_overlaps_it(site: Site) -> None:
    for number in range(VIEWS + FILES):
        fill(site.folder, {f"{number:04d}.jpg": picture(number % VIEWS)})
    before = facts(site.folder)
    assert site.once()["frames"]["exact_duplicate"] == FILES
    (run,) = site.runs("dedup")

    with site.daemon() as daemon:
        site.cli("dedup", "apply", run, "--yes", "--no-wait")
        moved = partial(count, site, DONE)
        daemon.wait_until(reached(moved, FILES // 3), "a third is moved")
        daemon.kill()
    left = FILES - count(site, DONE)
    assert 0 < left < FILES
    with site.daemon() as daemon:
        daemon.wait_until(lambda: count(site, OPEN) == 0, "the start has settled the open one")
        assert sorted(facts(site.folder).values()) == sorted(before.values())
        known = count(site, NEWEST)
        child = start_recluster(site, daemon)
        os.kill(child, signal.SIGSTOP)  # the recluster is under way for as long as this likes
        assert site.cli("dedup", "apply", run, "--yes", "--no-wait").code == 0
        daemon.wait_until(lambda: not site.table(QUEUED), "the request is taken")
        os.kill(child, signal.SIGCONT)
        daemon.wait_until(lambda: not site.table(UNANSWERED), "both are done")
    assert count(site, DONE) == FILES, site.table("SELECT kind, exit_code, result FROM requests")
    assert sorted(facts(site.folder).values()) == sorted(before.values())
    ((first_moved,),) = site.table(f"SELECT min(at) FROM journal WHERE id > {known}")
    ((published,),) = site.table(PUBLISHED)
    assert first_moved > published, "files moved while the recluster ran"
    site.verify()
