"""Anything in any order: the folder against a model that is a bag of contents.

Hypothesis delivers, rewrites, renames and deletes pictures as a user would, gives verdicts, files,
trashes, restores, deletes by policy, undoes, jumps the clock, and kills the process in the middle
of any of these. The model knows one thing: which contents the user left in the folder. Whatever
happened, each of them is on disk as often as the user left it, or the journal says that the policy
deleted it.
"""

import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from storage.errors import StillwatchError
from storage.models import Frame
from tests.tools.machine_site import MachineSite

NAMES = st.sampled_from(["a.jpg", "b.jpg", "day1/a.jpg", "day1/b.jpg", "day2/c.jpg", "-d.jpg"])
CHOICE = st.integers(0, 10_000)
ACTS = st.sampled_from(["file", "trash", "prune", "undo", "restore"])


class Folder(RuleBasedStateMachine):
    """The rules; `model` counts the contents that the user left."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="stillwatch-machine-"))
        self.site = MachineSite(self.base / "site")
        self.model: Counter[str] = Counter()

    def teardown(self) -> None:
        self.site.close()
        shutil.rmtree(self.base)

    # --- the user

    def _write(self, name: str, content: bytes) -> None:
        path = self.site.world.folder / name
        if path.exists():
            self._forget(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.model[hashlib.sha256(content).hexdigest()] += 1

    def _forget(self, path: Path) -> None:
        self.model -= Counter([hashlib.sha256(path.read_bytes()).hexdigest()])

    def _pick(self, choice: int, *, own: bool) -> Path | None:
        names = sorted(n for n in self.site.files() if n.startswith("stillwatch/") is own)
        return self.site.world.folder / names[choice % len(names)] if names else None

    @initialize()
    def first_day(self) -> None:
        """There is something to do from the start."""
        self.busy_day(4, 1)

    @rule(count=st.integers(2, 5), choice=CHOICE)
    def busy_day(self, count: int, choice: int) -> None:
        """New pictures under new names, found, judged and clustered."""
        for number in [next(self.site.numbers) for _ in range(count)]:
            self._write(f"day3/{number}.jpg", b"content %d" % number)
        self.scan()
        self.verdicts(choice)
        self.recluster(choice + 1, "dawn")

    @rule(name=NAMES, choice=CHOICE)
    def deliver(self, name: str, choice: int) -> None:
        """A picture, perhaps over one of that name; the bytes are new, or those of another."""
        original = self._pick(choice, own=choice % 2 == 0) if choice % 3 == 0 else None
        new = b"content %d" % next(self.site.numbers)
        self._write(name, new if original is None else original.read_bytes())

    @rule(choice=CHOICE, own=st.booleans())
    def rewrite(self, choice: int, own: bool) -> None:
        """Edited in place, also where stillwatch filed it."""
        path = self._pick(choice, own=own)
        if path is not None:
            self._write(
                os.fsdecode(path.relative_to(self.site.world.folder)),
                b"edited %d" % next(self.site.numbers),
            )

    @rule(choice=CHOICE, name=NAMES, own=st.booleans())
    def rename(self, choice: int, name: str, own: bool) -> None:
        """Renamed, or dragged out of stillwatch's folder; never over another file."""
        path, target = self._pick(choice, own=own), self.site.world.folder / name
        if path is not None and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)

    @rule(choice=CHOICE, own=st.booleans())
    def user_deletes(self, choice: int, own: bool) -> None:
        """Deleted by the user: nobody's loss."""
        path = self._pick(choice, own=own)
        if path is not None and choice % 3 == 0:
            self._forget(path)
            path.unlink()

    # --- the daemon

    @rule()
    def scan(self) -> None:
        """A scan, after which every file has a row and nothing is wrong."""
        self.site.scan()
        assert self.site.without_row() == []
        found = self.site.violations()
        assert found == {}, found

    @rule(choice=CHOICE)
    def verdicts(self, choice: int) -> None:
        """A near-duplicate of another frame; the rest stays."""
        kept = self.site.table(Frame.state.in_(("learning", "assigned")))
        needed = {row.duplicate_of for row in self.site.table(Frame.duplicate_of.is_not(None))}
        free = [row.id for row in kept if row.id not in needed]
        if free and len(kept) > 1:
            frame = free[choice % len(free)]
            keepers = [row.id for row in kept if row.id != frame]
            self.site.judge(frame, keepers[choice % len(keepers)])
        self.site.judge_rest()

    @rule(choice=CHOICE, name=st.sampled_from(["dawn", "night", "bird"]))
    def recluster(self, choice: int, name: str) -> None:
        """A frame gets another cluster, so its folder changes."""
        kept = self.site.table(Frame.state.in_(("learning", "assigned")))
        if kept:
            self.site.recluster(kept[choice % len(kept)].id, name)

    def _act(self, act: str, choice: int) -> Callable[[], None]:
        """One of the acts that touch files; what it refuses is no fault."""
        trashed = [row.id for row in self.site.table(Frame.state == "trashed")]
        run_ids = self.site.run_ids()

        def perform() -> None:
            try:
                if act == "undo" and run_ids:
                    self.site.undo(run_ids[choice % len(run_ids)])
                elif act == "restore" and trashed:
                    self.site.restore(trashed[choice % len(trashed)])
                elif act in ("file", "trash", "prune"):
                    getattr(self.site, act)()
            except StillwatchError:
                return

        return perform

    @rule()
    def file(self) -> None:
        """Everything that is judged goes where it belongs."""
        self._act("file", 0)()

    @rule()
    def trash(self) -> None:
        """Everything redundant goes to the trash."""
        self._act("trash", 0)()

    @rule()
    def prune(self) -> None:
        """What lay in the trash for long enough is deleted."""
        self.site.stay_up(1.5)
        self._act("prune", 0)()

    @rule(choice=CHOICE)
    def restore(self, choice: int) -> None:
        """One back from the trash."""
        self._act("restore", choice)()

    @rule(choice=CHOICE)
    def undo(self, choice: int) -> None:
        """Some run taken back."""
        self._act("undo", choice)()

    @rule(act=ACTS, choice=CHOICE, line=st.integers(1, 400))
    def crash(self, act: str, choice: int, line: int) -> None:
        """The same, killed in the middle, and the next start's recovery."""
        self.site.crash(self._act(act, choice), line)

    @rule(years=st.sampled_from([-10, 10]))
    def clock_jumps(self, years: int) -> None:
        """The wall clock is set; no daemon was up meanwhile, so nothing has become older."""
        before = self.site.deleted()
        self.site.world.now += years * 365 * 86_400.0
        self.site.prune()
        assert self.site.deleted() == before

    @precondition(lambda self: self.site.run_ids())
    @rule()
    def recover_twice(self) -> None:
        """Another start changes nothing."""
        self.site.recover()
        before = self.site.files()
        self.site.recover()
        assert self.site.files() == before

    @invariant()
    def nothing_is_lost(self) -> None:
        """Every content is there as often as the user left it, or the policy deleted it."""
        found = Counter(self.site.files().values())
        assert found + self.site.deleted() == self.model


Folder.TestCase.settings = settings(
    max_examples=int(os.environ.get("STILLWATCH_MACHINE_EXAMPLES", "15")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=os.environ.get("CI") == "true",
)
TestFolder = Folder.TestCase
