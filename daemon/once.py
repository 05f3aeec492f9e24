"""What `run --once` does when every file is recorded: recluster, plan, and file if asked to.

On an unchanged folder it changes nothing: no recluster, the same plan, no move.
"""

import time
from collections.abc import Callable
from typing import Final

from daemon.filing.job import file_frames
from daemon.jobs.dedup import plan_dedup
from daemon.jobs.encoder_switch import run_to_the_end
from daemon.jobs.handlers import apply_run
from daemon.jobs.recluster import recluster
from daemon.jobs.reembed import fill_gaps
from daemon.jobs.triggers import LAST_KEY, clustering_input
from daemon.jobs.workshop import Workshop
from storage import meta, runs, spaces
from storage.names import RUN, format_id
from storage.root_guard import load_roots

REPORT_SECONDS: Final = 5.0
"""Between two lines about a change of the encoder."""


def change_encoder(workshop: Workshop, report: Callable[[str], None]) -> None:
    """Bring a change of the encoder to its end, if one is under way.

    Raises:
        StillwatchError: It cannot go on now; the old encoder serves on.
    """
    told = time.monotonic()

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= REPORT_SECONDS:
            told = time.monotonic()
            report(f"{stage}: {done} of {total}")

    if run_to_the_end(workshop, tell):
        with workshop.db.read() as connection:
            clustered = meta.get(connection, LAST_KEY) is not None
        if clustered:  # the change has clustered all there is
            digest = clustering_input(workshop)
            with workshop.db.write() as connection:
                meta.put(connection, "clustering_input", digest)


def _fill_gaps(workshop: Workshop) -> None:
    """Give the frames on disk their vectors that no arrival gave, such as those in the trash."""
    tried: set[int] = set()
    with workshop.db.read() as connection:
        serving = spaces.serving_space(connection)
        if serving is None:
            return
        tried.update(spaces.known_gaps(connection, serving.id))
    while True:
        with workshop.db.read() as connection:
            missing = spaces.lacking(connection, serving.id).tolist()
        if tried.issuperset(missing):
            return
        stretch = fill_gaps(workshop, serving, tried=tried)
        tried.update(stretch.refused)
        if stretch.exhausted:
            return


def finish_once(workshop: Workshop, report: Callable[[str], None], *, filing: bool) -> int:
    """Do the jobs once; returns the number of entries that filing had to skip."""
    _fill_gaps(workshop)
    digest = clustering_input(workshop)
    with workshop.db.read() as connection:
        known = meta.get(connection, "clustering_input")
    if digest != known:
        result = recluster(workshop, _quiet)
        report(
            f"{result['clusters']} clusters of {result['frames']} frames,"
            f" {result['noise']} outliers"
        )
        with workshop.db.write() as connection:
            meta.put(connection, "clustering_input", digest)
    plan = plan_dedup(workshop, _quiet, at_once=True)
    report(f"dedup plan {plan['run']}: {plan['frames_redundant']} frames redundant")
    return _file(workshop, report) if filing else 0


def _file(workshop: Workshop, report: Callable[[str], None]) -> int:
    skipped = 0
    with workshop.db.read() as connection:
        newest = runs.newest_run(connection, "dedup")
        if not any(root.writable for root in load_roots(connection).values()):
            return 0  # filing is forced off, and was said to be; nothing is left undone
    if newest is not None and newest["state"] == "planned" and newest["counts"]["entries"]:
        outcome = apply_run(workshop, int(newest["id"]), _quiet)
        skipped += int(outcome.result["skipped"])
        report(f"{outcome.result['run']}: {outcome.result['applied']} duplicates filed")
    with workshop.files:
        filed = file_frames(
            workshop.db,
            workshop.settings.filing,
            explicit=True,
            clock=workshop.wall,
            should_stop=lambda: workshop.processes.stopped,
        )
    workshop.processes.require_running()
    for run in filed.runs:
        skipped += len(run.skipped)
        report(f"{format_id(RUN, run.run_id)}: {run.applied} frames filed")
    return skipped


def _quiet(_stage: str, _done: int, _total: int) -> None:
    """Progress of single stages is not shown with --once."""
