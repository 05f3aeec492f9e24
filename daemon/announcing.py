"""What the daemon says to its owner when it starts."""

import os
from collections.abc import Sequence

from daemon.run_options import Report
from storage.cameras import CameraRow


def tell_start(report: Report, cameras: Sequence[CameraRow], mode: str, *, filing: bool) -> None:
    """Say what is watched, and what filing does or would do (`mode` of the settings)."""
    for row in cameras:
        report(f"watching {os.fsdecode(row.root)} as camera {row.name}")
    tell_unwritable(report, cameras, filing=filing)
    if filing:
        report(f"filing is on (mode {mode})")
    else:
        report(
            "filing is off: duplicates and clusters are only recorded; with --file they would"
            " be moved into FOLDER/stillwatch/, undoable"
        )


def tell_unwritable(report: Report, cameras: Sequence[CameraRow], *, filing: bool) -> None:
    """Say where filing is on and cannot be."""
    for row in cameras:
        if filing and not row.writable:
            report(f"{os.fsdecode(row.root)} cannot be written: nothing is filed there")
