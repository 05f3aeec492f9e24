"""Keeping the snapshot that `similar` reads: a process of its own builds it after a recluster."""

import logging

from daemon.jobs.child import JobFailedError, JobStoppedError, Progress
from daemon.jobs.workshop import NEIGHBOURS_FOLDER, Workshop
from storage.modes import make_private_folder

_log = logging.getLogger(__name__)


def refresh_neighbours(
    workshop: Workshop, space_id: int, progress: Progress = lambda _stage, _done, _total: None
) -> None:
    """Build the snapshot over every frame on disk that has a vector in this space.

    A failure is logged and no more: the recluster is published by then, and `similar` compares
    what the snapshot does not know.
    """
    folder = workshop.state_dir / NEIGHBOURS_FOLDER
    parameters = {
        "state_dir": str(workshop.state_dir),
        "space_id": space_id,
        "folder": str(folder),
    }
    try:
        make_private_folder(folder)
        with workshop.processes.run("daemon.jobs.neighbours_child", parameters, progress):
            pass
    except (JobFailedError, JobStoppedError, OSError) as exc:
        _log.warning("the snapshot for `similar` was not built: %s", exc)
