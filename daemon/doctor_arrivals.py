"""The doctor's look at what keeps files of a camera from being taken in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from daemon.findings import Check
from storage.camera_health import Waiting, hindrances, left_out
from storage.errors import StillwatchError
from storage.reading import Reader

_CURES: Final = {
    "empty": "Make room on the disk of whoever writes them; they are taken in once they have "
    "content.",
    "unreadable": "`stillwatch frames --state pending` lists them, `stillwatch why FRAME` says "
    "why; mend that, and they are taken in by themselves.",
    "unfinished": "Look at them, and delete them if their sender has given up: stillwatch leaves "
    "them alone.",
    "folders": "Grant read and search permission, or shorten the path.",
}


def examine_arrivals(state_dir: Path) -> Iterator[Check]:
    """One finding for each kind of hindrance of each active camera; none without a database."""
    try:
        with Reader(state_dir) as reader:
            waiting = Waiting.of_cameras(reader)
            found = {
                row["name"]: hindrances(
                    waiting.get(row["id"], Waiting()), left_out(reader, row["id"])
                )
                for row in reader.rows("SELECT id, name FROM cameras WHERE state != 'inactive'")
            }
    except StillwatchError:
        return  # the check of the database says so
    for name, told in found.items():
        for kind, words in told.items():
            yield Check(f"arrivals:{name}:{kind}", "warn", f"{name}: {words}.", _CURES[kind])
        if not told:
            yield Check(f"arrivals:{name}", "ok", f"Nothing keeps files of {name} out.")
