"""`restore`: one frame back from the trash, and kept from then on."""

from typing import Any

from daemon.filing.trash import restore_frame
from daemon.jobs.decisions import new_run
from daemon.jobs.workshop import Workshop
from storage import decisions, dedup
from storage.names import FRAME, RUN, format_id, path_fields


def restore(workshop: Workshop, frame_id: int, actor: str) -> dict[str, Any]:
    """Move a trashed frame back to where it was; that is a decision to keep it.

    A near-duplicate is a kept frame again; an exact duplicate stays one, but is left alone.

    Returns:
        `run` (of the decision), `frame`, `path`, and `beside`: its old place was taken.

    Raises:
        NotFoundError: It is in no trash.
        ConflictError: It was deleted.
        FilingError, RootOfflineError: Not done, with the reason.
    """
    with workshop.files:
        moved, beside = restore_frame(workshop.db, frame_id, clock=workshop.wall)
        with workshop.db.write() as connection:
            run_id = new_run(workshop, connection, "keep", 1)
            decisions.add(
                connection,
                "keep",
                actor=actor,
                at=workshop.wall(),
                run_id=run_id,
                frame_id=frame_id,
            )
            near = list(dedup.keepers_of(connection, [frame_id]))
            dedup.clear_verdicts(connection, near, f"kept: restored from the trash by {actor}")
    frame = {"run": format_id(RUN, run_id), "frame": format_id(FRAME, frame_id)}
    return frame | path_fields(moved.target) | {"beside": beside}
