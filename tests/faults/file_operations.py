"""The operations on a user's files, each in a small world, for tests/faults/sweep.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from daemon.filing.apply import Mode, apply_entries
from daemon.filing.job import file_frames
from daemon.filing.prune import PairTest, delete_run
from daemon.filing.trash import restore_frame, trash_run
from daemon.filing.undo import undo_run
from daemon.settings import FilingSettings
from storage import plan_entries, runs
from tests.faults.site import Site
from tests.tools.filing_world import Snapshot, World

KEEPER, FRAME = 1, 2
"""Ids of the two frames of a world."""
SETTINGS: Final = FilingSettings()


class Filing:
    """Applying a plan, or taking it back.

    Args:
        site: Where.
        action: `apply` or `undo`.
        mode: What filing does with a file.
        sidecar: A file of another program lies beside the picture.
    """

    def __init__(
        self, site: Site, action: str, *, mode: Mode = "move", sidecar: bool = False
    ) -> None:
        self._site, self._action, self._mode, self._sidecar = site, action, mode, sidecar
        self._run = 0
        self._before: Snapshot = {}

    def prepare(self) -> None:
        world = self._site.renew()
        world.frame("k.jpg")
        world.frame("in/a.jpg", duplicate_kind="near", duplicate_of=KEEPER)
        self._run = planned(world, "dedup", "file")
        if self._sidecar:
            world.write("in/a.xmp", b"what a photo program wrote", 0o604)
        self._before = world.snapshot()
        if self._action == "undo":
            self._apply()
        world.db.close()

    def act(self) -> None:
        if self._action == "undo":
            undo_run(self._site.world.db, self._run, clock=self._site.world.clock)
        else:
            self._apply()

    def _apply(self) -> None:
        world = self._site.world
        apply_entries(world.db, self._run, mode=self._mode, clock=world.clock)

    def check(self) -> None:
        self._site.settle()
        self._site.proven(self._look, self._to_the_end)

    def _to_the_end(self) -> None:
        self.act()
        self._look()
        done = self._frame_is_filed() if self._mode == "move" else bool(self._extra())
        assert done == (self._action == "apply")
        undo_run(self._site.world.db, self._run, clock=self._site.world.clock)
        self._look()
        assert self._site.world.snapshot() == self._before, "not as delivered"

    def _look(self) -> None:
        self._site.assert_invariants()
        assert_once(self._before, self._site.world.snapshot(), extra=self._mode != "move")
        beside = {path.parent for path in self._site.world.folder.rglob("a.*")}
        assert self._mode != "move" or len(beside) == 1, f"torn apart: {beside}"

    def _frame_is_filed(self) -> bool:
        return self._site.world.path_of(FRAME).startswith("stillwatch/")

    def _extra(self) -> list[Path]:
        return list(self._site.own.rglob("a.*"))


class FolderRename:
    """A cluster's folder follows its new name, or gets the old one back."""

    def __init__(self, site: Site, action: str) -> None:
        self._site, self._action = site, action
        self._before: Snapshot = {}

    def prepare(self) -> None:
        world = self._site.renew()
        cluster = world.cluster("cats")
        for name in ("a.jpg", "b.jpg"):
            world.frame(name, cluster_id=cluster)
        self._file()
        self._before = world.snapshot()
        world.rename_cluster(cluster, "dogs", "cats")
        if self._action == "undo":
            self._file()
        world.db.close()

    def _file(self) -> None:
        world = self._site.world
        file_frames(world.db, SETTINGS, explicit=True, clock=world.clock)

    def _undo(self) -> None:
        world = self._site.world
        with world.db.read() as connection:
            last = runs.newest_run(connection, "folders")
        if last is not None and last["state"] != "undone":
            undo_run(world.db, last["id"], clock=world.clock)

    def act(self) -> None:
        if self._action == "undo":
            self._undo()
        else:
            self._file()

    def check(self) -> None:
        self._site.settle()
        self._site.proven(self._look, self._to_the_end)

    def _to_the_end(self) -> None:
        self.act()
        self._look()
        if self._action == "undo":
            assert self._site.world.snapshot() == self._before, "not as before"
        else:
            assert list(self._site.own.glob("clusters/dogs/*/a.jpg"))
            assert not list(self._site.own.glob("clusters/cats*"))

    def _look(self) -> None:
        self._site.assert_invariants()
        assert_once(self._before, self._site.world.snapshot())


class Trash:
    """Into the trash, out of it, or deleted from it.

    Args:
        site: Where.
        action: `trash`, `untrash` (undo of the run), `restore` (one frame) or `delete`.
        sidecar: A file of another program lies beside the picture.
    """

    def __init__(self, site: Site, action: str, *, sidecar: bool = False) -> None:
        self._site, self._action, self._sidecar = site, action, sidecar
        self._run = 0
        self._before: Snapshot = {}

    def prepare(self) -> None:
        world = self._site.renew()
        world.frame("k.jpg")
        world.frame("in/a.jpg", duplicate_kind="near", duplicate_of=KEEPER)
        if self._sidecar:
            world.write("in/a.xmp", b"what a photo program wrote", 0o604)
        self._before = world.snapshot()
        self._run = planned(world, "trash", "trash")
        if self._action != "trash":
            trash_run(world.db, self._run, clock=world.clock)
        if self._action == "delete":
            self._run = planned(world, "prune", "delete")
        world.db.close()

    def act(self) -> None:
        world = self._site.world
        match self._action:
            case "trash":
                trash_run(world.db, self._run, clock=world.clock)
            case "untrash":
                undo_run(world.db, self._run, clock=world.clock)
            case "restore":
                if world.row(FRAME).state == "trashed":
                    restore_frame(world.db, FRAME, clock=world.clock)
            case "delete":
                tests = {FRAME: PairTest(keeper_id=KEEPER, passed=True, reason="")}
                delete_run(world.db, self._run, tests, clock=world.clock)

    def check(self) -> None:
        self._site.settle()
        self._site.proven(self._look, self._to_the_end)

    def _to_the_end(self) -> None:
        world = self._site.world
        if self._action in ("trash", "delete") and world.row(FRAME).state not in ENDS[self._action]:
            self._run = planned(world, *RUN_KINDS[self._action])  # as the next round does
        self.act()
        self._look()
        assert world.row(FRAME).state in ENDS[self._action], world.row(FRAME).state
        if self._action == "delete":
            return
        if self._action == "trash":
            restore_frame(world.db, FRAME, clock=world.clock)
            self._look()
        assert world.snapshot() == self._before, "not as delivered"

    def _look(self) -> None:
        world = self._site.world
        self._site.assert_invariants()
        row = world.row(FRAME)
        now = world.snapshot()
        if row.presence == "pruned":
            assert all(path == b"k.jpg" or path.endswith(b".xmp") for path in now), now
            return
        assert_once(self._before, now)
        assert now[row.path] == self._before[b"in/a.jpg"]
        assert row.path.startswith(b"stillwatch/trash/") == (row.presence == "trashed")
        assert (row.trashed_at is None) == (row.presence == "here")


ENDS: Final = {
    "trash": ("trashed",),
    "untrash": ("near_duplicate",),
    "restore": ("near_duplicate",),
    "delete": ("pruned",),
}
"""The state of the frame in the end."""
RUN_KINDS: Final[dict[str, tuple[runs.RunKind, str]]] = {
    "trash": ("trash", "trash"),
    "delete": ("prune", "delete"),
}


def planned(world: World, kind: runs.RunKind, action: str) -> int:
    """A run with the duplicate as its one entry."""
    entry = plan_entries.NewEntry(
        frame_id=FRAME, keeper_id=KEEPER, reason="", sha256=world.row(FRAME).sha256, action=action
    )
    with world.db.write() as connection:
        return runs.create_run(connection, kind, [entry], now=world.clock())


def assert_once(before: Snapshot, now: Snapshot, *, extra: bool = False) -> None:
    """Each delivered file is there once with bytes, time and mode; `extra`: links may be, too."""
    values = list(now.values())
    for path, facts in before.items():
        count = values.count(facts)
        assert count == 1 or (extra and count == 2 and path != b"k.jpg"), (path, count)
    assert set(values) == set(before.values()), "a file nobody delivered"


def _mounted(base: Path, kind: str) -> Site:
    site = Site(base)
    site.mount_own(kind)
    return site


FILE_OPERATIONS: Final[dict[str, Callable[[Path], Any]]] = {
    "move": lambda base: Filing(Site(base), "apply"),
    "move-across": lambda base: Filing(_mounted(base, "other"), "apply"),
    "move-bound": lambda base: Filing(_mounted(base, "bound"), "apply"),
    "move-sidecar": lambda base: Filing(Site(base), "apply", sidecar=True),
    "link": lambda base: Filing(Site(base), "apply", mode="hardlink"),
    "link-sidecar": lambda base: Filing(Site(base), "apply", mode="hardlink", sidecar=True),
    "copy": lambda base: Filing(Site(base), "apply", mode="copy"),
    "folder": lambda base: FolderRename(Site(base), "apply"),
    "undo-move": lambda base: Filing(Site(base), "undo"),
    "undo-across": lambda base: Filing(_mounted(base, "other"), "undo"),
    "undo-bound": lambda base: Filing(_mounted(base, "bound"), "undo"),
    "undo-sidecar": lambda base: Filing(Site(base), "undo", sidecar=True),
    "undo-link": lambda base: Filing(Site(base), "undo", mode="hardlink"),
    "undo-copy": lambda base: Filing(Site(base), "undo", mode="copy"),
    "undo-folder": lambda base: FolderRename(Site(base), "undo"),
    "trash": lambda base: Trash(Site(base), "trash"),
    "trash-sidecar": lambda base: Trash(Site(base), "trash", sidecar=True),
    "untrash": lambda base: Trash(Site(base), "untrash"),
    "restore": lambda base: Trash(Site(base), "restore"),
    "delete": lambda base: Trash(Site(base), "delete"),
    "delete-sidecar": lambda base: Trash(Site(base), "delete", sidecar=True),
}
"""Name -> the operation in a new folder. Those with a mount need root and a mount namespace."""
