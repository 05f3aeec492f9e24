"""What the scenarios of filing_disks.py do in a small world, and how they look at it."""

from typing import Final

from daemon.filing.apply import ApplyResult
from daemon.filing.job import file_frames
from daemon.filing.prune_plan import entry_of, plan_prune
from daemon.filing.trash import trash_run
from daemon.settings import FilingSettings, PruneSettings
from storage import runs
from tests.tools.filing_world import Snapshot, World

SETTINGS: Final = FilingSettings()
DAY: Final = 86400.0


def bytes_of(snapshot: Snapshot) -> list[bytes]:
    """The contents of all files, wherever they are."""
    return sorted(content for content, _, _ in snapshot.values())


def file(world: World) -> ApplyResult:
    """File what is not filed, in one run."""
    (run,) = file_frames(world.db, SETTINGS, explicit=True, clock=world.clock).runs
    return run


def trash(world: World) -> ApplyResult:
    """Put into the trash what is redundant."""
    settings = PruneSettings(enabled=True)
    plan = plan_prune(world.db, settings, world.now + 8 * DAY, explicit=True, at_once=False)
    entries = [entry_of(frame, "trash", world.now) for frame in plan.to_trash]
    with world.db.write() as connection:
        run = runs.create_run(connection, "trash", entries, now=world.clock())
    return trash_run(world.db, run, clock=world.clock)


def novel(world: World, *names: str) -> list[int]:
    """Frames that filing puts into one folder."""
    return [world.frame(name, alarm=True) for name in names]


def reasons(run: ApplyResult) -> list[str]:
    """Why entries were skipped."""
    return [entry.reason for entry in run.skipped]


def assert_settled(world: World) -> None:
    """No operation is half done, and every row says what lies on disk."""
    assert all(row.state in ("done", "dropped") for row in world.journal())
    world.assert_rows_agree()
