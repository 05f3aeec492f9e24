"""Serving what was published: the judge is built beside the pipeline, and takes over at once.

With many representatives the index takes a while. Frames go on arriving meanwhile and wait in
state learning; so they do when the daemon is killed before they got their places.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from daemon.clustering.online import OnlineNovelty
from daemon.jobs.child import JobFailedError, Progress
from daemon.jobs.judge import load_judge
from daemon.jobs.placing import place_again
from daemon.jobs.workshop import Workshop
from storage import decisions, embeddings
from storage.placements import waiting_frames
from storage.vector_index import EXACT_ROWS

Choice = Callable[[Connection, int], Sequence[int]]
"""Which frames of the space get a place anew."""


def serve_published(
    workshop: Workshop, progress: Progress, choose: Choice = waiting_frames
) -> None:
    """Serve the clustering that the database holds.

    Args:
        workshop: What the job works with; `quiet` is not held.
        progress: Told the stage.
        choose: Which frames are placed anew when the judge takes over.
    """
    space = workshop.current_space()
    if space is None:
        return
    _build_index(workshop, space[0], progress)
    with workshop.db.read() as connection:
        word = decisions.newest_word(connection)
    judge = load_judge(workshop)
    with workshop.quiet():
        with workshop.db.read() as connection:
            decided_meanwhile = decisions.newest_word(connection) != word
        if decided_meanwhile:
            judge = load_judge(workshop)
        _place(workshop, space[0], judge, choose)
        workshop.serve(judge)


def place_what_waits(workshop: Workshop, judge: OnlineNovelty | None) -> None:
    """Place the frames that an earlier daemon left waiting; call before frames arrive."""
    space = workshop.current_space()
    if space is not None:
        _place(workshop, space[0], judge, waiting_frames)


def _place(workshop: Workshop, space_id: int, judge: OnlineNovelty | None, choose: Choice) -> None:
    if judge is None:
        return
    with workshop.db.write() as connection:
        place_again(connection, space_id, judge, choose(connection, space_id))


def _build_index(workshop: Workshop, space_id: int, progress: Progress) -> None:
    """Have the index file written by a process of its own: its memory and time are not ours.

    Few representatives are indexed by the judge: it takes no longer than a process does.
    """
    with workshop.db.read() as connection:
        if embeddings.count_references(connection, space_id) <= EXACT_ROWS:
            return
    parameters = {"state_dir": str(workshop.state_dir), "space_id": space_id}
    try:
        with workshop.processes.run("daemon.jobs.index_child", parameters, progress):
            pass
    except JobFailedError:
        # the judge builds it itself where the file does not fit
        return
