"""What the owner says about encoders: begin a change, go back, forget the vectors of a space."""

from typing import Any, Final

from sqlalchemy import Connection

from daemon.jobs.child import Progress
from daemon.jobs.encoder_switch import prepared_space, run_to_the_end
from daemon.jobs.workshop import Workshop
from storage import meta, runs, spaces
from storage.errors import ConflictError, EncoderMismatchError
from storage.names import RUN, format_id
from storage.spaces import DECLINED_KEY, SpaceRow, Switch

FORGOTTEN_AT_ONCE: Final = 500
"""Frames whose vectors are deleted in one transaction, so that ingest never waits long."""


def begin_switch(connection: Connection, encoder_id: str, now: float) -> None:
    """Change to this encoder from now on; a change to another one that is under way ends."""
    switch = spaces.load_switch(connection)
    if switch is not None and switch.undoes is None and switch.encoder == encoder_id:
        return
    cancel_switch(connection)
    spaces.store_switch(connection, Switch(encoder=encoder_id, started_at=now))


def cancel_switch(connection: Connection) -> Switch | None:
    """End the change that is under way, if any; vectors that were made stay for another time."""
    switch = spaces.load_switch(connection)
    if switch is None:
        return None
    if switch.run_id is not None:
        runs.set_state(connection, switch.run_id, "undone")
    spaces.store_switch(connection, None)
    serving = spaces.serving_space(connection)
    if serving is not None:
        spaces.tell_encoder(connection, serving.encoder, serving.name, "ready")
    return switch


def undo_switch(workshop: Workshop, run_id: int, progress: Progress) -> dict[str, Any]:
    """Go back to the encoder before; frames that came since are encoded by it first.

    A change that is not complete is only ended. The settings may go on naming the other encoder:
    it is remembered that the owner went back.

    Args:
        workshop: What the job works with.
        run_id: The run of the change.
        progress: Told stage, done, total.

    Returns:
        The result of the request: run, restored (frames that had to be encoded), skipped, entries.

    Raises:
        ConflictError: The encoder was changed again after that run.
        EncoderMismatchError: The old encoder is another one by now.
        JobFailedError: The old encoder cannot be made ready; nothing has changed.
    """
    with workshop.db.read() as connection:
        row = runs.get_run(connection, run_id)
        serving = spaces.serving_space(connection)
    sides, state = row["parameters"], row["state"]
    restored = skipped = 0
    if state == "applied":
        back = _way_back(workshop, sides, run_id, serving, progress)
        restored, skipped = _go_back(workshop, back, sides, run_id, progress)
    elif state != "undone":
        with workshop.db.write() as connection:
            _decline(connection, sides, run_id)
            cancel_switch(connection)
    told = {"run": format_id(RUN, run_id), "restored": restored, "skipped": skipped}
    return told | {"entries": []}


def _way_back(
    workshop: Workshop,
    sides: dict[str, Any],
    run_id: int,
    serving: SpaceRow | None,
    progress: Progress,
) -> SpaceRow:
    """The space before the run, once it is sure that its encoder can still be used."""
    if serving is None or serving.id != sides["to"]["space"]:
        raise ConflictError(
            f"The encoder was changed again after {format_id(RUN, run_id)}.",
            hint="`stillwatch runs` lists the runs; undo the newest of kind encoder first.",
        )
    with workshop.db.read() as connection:
        back = spaces.space_of(connection, int(sides["from"]["space"]))
    made = str(prepared_space(workshop, back.encoder, progress)["name"])
    if made != back.name:
        raise EncoderMismatchError(
            f"The frames were encoded as {back.name}, the encoder here is {made} by now.",
            hint="Put its old weights back, then undo again.",
        )
    return back


def switch_after_all(workshop: Workshop) -> dict[str, Any]:
    """Change to the encoder that the settings name, though a change to it was undone.

    Returns:
        The result of the request: encoder, changing (False: it serves already).
    """
    wanted = workshop.settings.encoder.id
    with workshop.db.write() as connection:
        meta.put(connection, DECLINED_KEY, None)
        serving = spaces.serving_space(connection)
        changing = serving is not None and serving.encoder != wanted
        if changing:
            begin_switch(connection, wanted, workshop.wall())
    return {"encoder": wanted, "changing": changing}


def _go_back(
    workshop: Workshop, back: SpaceRow, sides: dict[str, Any], run_id: int, progress: Progress
) -> tuple[int, int]:
    """Change to the space before; frames that were encoded for it, and that could not be."""
    with workshop.db.write() as connection:
        before = spaces.count_vectors(connection, back.id)
        _decline(connection, sides, run_id)
        cancel_switch(connection)
        way = Switch(
            encoder=back.encoder, started_at=workshop.wall(), space_id=back.id, undoes=run_id
        )
        spaces.store_switch(connection, way)
    run_to_the_end(workshop, progress)
    with workshop.db.read() as connection:
        made = spaces.count_vectors(connection, back.id) - before
        return made, len(spaces.lacking(connection, back.id))


def _decline(connection: Connection, sides: dict[str, Any], run_id: int) -> None:
    """Remember that the owner does not want the encoder that the run led to."""
    declined = {"encoder": str(sides["to"]["encoder"]), "run": run_id}
    meta.put(connection, DECLINED_KEY, declined)


def forget_space(workshop: Workshop, name: str, progress: Progress) -> dict[str, Any]:
    """Delete the vectors, tile maps and calibration of a space that does not serve.

    Args:
        workshop: What the job works with.
        name: The space's name.
        progress: Told stage, done, total.

    Returns:
        The result of the request: space, frames.

    Raises:
        NotFoundError: There is no such space.
        ConflictError: It serves, or a change to it is under way.
    """
    with workshop.db.read() as connection:
        space = spaces.find_space(connection, name)
        serving, switch = spaces.serving_space(connection), spaces.load_switch(connection)
        total = spaces.count_vectors(connection, space.id)
    if serving is not None and serving.id == space.id:
        raise ConflictError(
            f"{name} is the space that serves: its vectors are needed.",
            hint="Change the encoder first (encoder.id in the settings).",
        )
    if switch is not None and switch.space_id == space.id:
        raise ConflictError(
            f"A change to {name} is under way.",
            hint="`stillwatch runs` names its run; `stillwatch undo RUN --yes` ends it.",
        )
    done = 0
    while True:
        with workshop.db.write() as connection:
            some = spaces.forget_some(connection, space.id, FORGOTTEN_AT_ONCE)
        if not some:
            return {"space": name, "frames": done}
        done += some
        progress("forgetting vectors", done, total)
