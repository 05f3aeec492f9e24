"""A control group with little memory, in which the kernel's OOM killer strikes for real.

Needs root and a memory controller, of cgroup v1 or v2. The one to be killed is chosen by its
oom_score_adj (proc(5)); a helper takes memory until it is dead.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.end_to_end.process import wait_until

ROOT: Final = Path("/sys/fs/cgroup")
SPARE_BYTES: Final = 48 << 20
"""Memory that the group may take beyond what it has when the helper begins."""
HELPER: Final = """
import sys, time
sys.stdin.readline()
taken = []
while len(taken) < 100:
    taken.append(b"x" * (4 << 20))
    time.sleep(0.01)
    with open(f"/proc/{sys.argv[1]}/stat") as file:
        if file.read().rpartition(")")[2].split()[0] in "ZX":
            break
"""


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A group of processes; `limit`, `usage`: the files of its controller."""

    folder: Path
    limit: Path
    usage: Path

    def _add(self, *pids: int) -> None:
        for pid in pids:
            (self.folder / "cgroup.procs").write_text(str(pid))

    def kill_by_shortage(self, pid: int) -> None:
        """Take a process in and use up the group's memory until the kernel has killed it.

        Nothing else is in the group but the helper, which has fewer points than one with
        oom_score_adj 1000 that has some memory of its own.
        """
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
        command = [sys.executable, "-c", HELPER, str(pid)]
        helper = subprocess.Popen(command, stdin=subprocess.PIPE)
        try:
            self._add(pid, helper.pid)
            self.limit.write_text(str(int(self.usage.read_text()) + SPARE_BYTES))
            helper.communicate(b"go\n", timeout=60)
            wait_until(lambda: _has_ended(pid), "the kernel has killed it", 20)
        finally:
            helper.kill()
            helper.wait()
            self.limit.write_text("-1" if self.limit.name != "memory.max" else "max")


def _has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def why_impossible() -> str | None:
    """Why there can be no such group here, or None."""
    if os.geteuid() != 0:
        return "making a control group needs root"
    if _controller() is None:
        return "there is no memory controller that can be written"
    return None


def _controller() -> tuple[Path, str, str] | None:
    """(folder in which groups are made, name of the limit, name of the usage)."""
    if os.access(ROOT / "memory" / "memory.limit_in_bytes", os.R_OK):
        if os.access(ROOT / "memory", os.W_OK):
            return ROOT / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        return None
    with suppress(OSError):
        if "memory" in (ROOT / "cgroup.subtree_control").read_text().split():
            return ROOT, "memory.max", "memory.current"
    return None


@contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """A group of its own; it is removed when its processes have ended."""
    found = _controller()
    if found is None:
        raise RuntimeError("there is no memory controller")
    parent, limit, usage = found
    folder = parent / f"stillwatch-test-{os.getpid()}"
    folder.mkdir()
    try:
        yield MemoryGroup(folder, folder / limit, folder / usage)
    finally:
        wait_until(lambda: not (folder / "cgroup.procs").read_text().split(), "it is empty", 20)
        folder.rmdir()
