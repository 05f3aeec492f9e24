"""What a picture can do that has taken its decoding process over: nothing to anybody else."""

import contextlib
import errno
import os
import queue
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from daemon.doctor_decoder import examine_decoder
from daemon.ingest import decode_process, sandbox, seccomp_filter
from daemon.ingest.decode_process import ChildFailedError, DecodeChild
from daemon.ingest.decoder import DecodePool
from daemon.ingest.settling import stat_key
from daemon.messages import SettledFile
from daemon.settings import IngestSettings
from tests.faults.decode_corpus import samples
from tests.ingest_tools import wait_until

ROOT = Path(__file__).parents[2]
SIZE = (64, 64)
HOSTILE = "tests.tools.hostile_decode_child"
Ask = Callable[..., str]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Has a hostile process attempt something; what came of it."""
    monkeypatch.setattr(decode_process, "CHILD_MODULE", HOSTILE)
    children: dict[str, DecodeChild] = {}

    def attempt(name: str, without: str = "", **values: float) -> str:
        if without not in children:
            monkeypatch.setenv("STILLWATCH_TEST_WITHOUT", without)
            children[without] = DecodeChild(IngestSettings.model_validate(values))
        path = tmp_path / "attempt"
        path.write_text(name)
        with path.open("rb") as file:
            try:
                answer, _ = children[without].ask(file.fileno(), SIZE)
            except ChildFailedError:
                del children[without]
                raise
        return str(answer.get("refused") or answer["unreadable"])

    yield attempt
    for child in children.values():
        child.close()


def test_this_machine_has_every_limit() -> None:
    child = DecodeChild(IngestSettings())
    held = child.confinement()
    child.close()
    if held != list(sandbox.KERNEL_LIMITS):
        pytest.skip(f"this kernel has only: {held}")


def test_both_limits_together_leave_nothing(ask: Ask) -> None:
    for name in (
        *("read a file", "write a file", "list a folder", "remove a file", "rename a file"),
        *("make a socket", "make a local socket", "connect", "listen"),
        *("fork", "run a program", "kill the daemon", "trace the daemon", "make code"),
        *("lift the memory limit", "lift the file limit"),
    ):
        refused = ask(name)
        assert refused != "done", name
        assert re.search(rf"PermissionError ({errno.EPERM}|{errno.EACCES})|ValueError", refused), (
            name,
            refused,
        )
    assert ask("open many files") == f"PermissionError {errno.EPERM}"
    assert ask("start a thread") == "done"


def test_each_limit_of_the_kernel_holds_without_the_other(ask: Ask) -> None:
    denied = f"PermissionError {errno.EACCES}"
    for name in ("read a file", "write a file", "list a folder", "run a program", "connect"):
        assert ask(name, without=sandbox.SECCOMP) == denied, name
    assert ask("kill the daemon", without=sandbox.SECCOMP) == f"PermissionError {errno.EPERM}"
    assert ask("trace the daemon", without=sandbox.SECCOMP) == f"PermissionError {errno.EPERM}"
    assert ask("open many files", without=sandbox.SECCOMP) == f"OSError {errno.EMFILE}"
    assert ask("make a socket", without=sandbox.SECCOMP) == "done"  # what only seccomp forbids
    assert ask("fork", without=sandbox.SECCOMP) == "done"
    refused = f"PermissionError {errno.EPERM}"
    for name in ("read a file", "write a file", "make a socket", "connect", "fork", "make code"):
        assert ask(name, without=sandbox.LANDLOCK) == refused, name


def test_what_the_confinement_causes_is_not_the_pictures_fault(ask: Ask) -> None:
    assert ask("need another module").startswith("the decoder lacks something here")


@pytest.mark.parametrize("missing", sandbox.KERNEL_LIMITS)
def test_doctor_says_which_limit_the_kernel_lacks(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    (check,) = examine_decoder()
    assert (check.status, missing in check.summary) == ("ok", True)
    monkeypatch.setattr(decode_process, "CHILD_MODULE", HOSTILE)
    monkeypatch.setenv("STILLWATCH_TEST_WITHOUT", missing)
    (check,) = examine_decoder()
    assert check.status == "warn" and f"lacks {missing}" in check.summary and check.fix
    monkeypatch.setattr(decode_process, "CHILD_MODULE", "no.such.module")
    (check,) = examine_decoder()
    assert check.status == "fail" and "does not start" in check.summary


def test_the_log_tells_once_what_the_kernel_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(decode_process, "CHILD_MODULE", HOSTILE)
    monkeypatch.setenv("STILLWATCH_TEST_WITHOUT", sandbox.LANDLOCK)
    (tmp_path / "file").write_text("start a thread")
    key = stat_key((tmp_path / "file").lstat())
    file = SettledFile(camera_id=1, path=b"file", stat=key, changed_at=0.0)
    results: queue.Queue[object] = queue.Queue()
    settings = IngestSettings(decode_children=1)
    pool = DecodePool(settings, SIZE, {1: os.fsencode(tmp_path)}, results.put)
    pool.start()
    for _ in range(2):
        assert pool.try_put(file)
        results.get(timeout=60)
    pool.close()
    assert caplog.text.count("not confined by landlock") == 1


@pytest.mark.parametrize("name", ["crash", "abort", "exit", "answer in part"])
def test_an_end_of_the_process_is_a_crash(ask: Ask, name: str) -> None:
    message = "longer than 1 s" if name == "answer in part" else "crashed"
    with pytest.raises(ChildFailedError, match=message):
        ask(name, decode_seconds=1)


@pytest.mark.parametrize("name", ["loop", "hang", "drip"])
def test_time_runs_out_however_busy_it_is(ask: Ask, name: str) -> None:
    with pytest.raises(ChildFailedError, match=r"longer than 0\.6 s"):
        ask(name, decode_seconds=0.6)


@pytest.mark.parametrize("name", ["promise 4 GB", "say nonsense", "answer with a list"])
def test_a_senseless_answer_costs_the_process_alone(ask: Ask, name: str) -> None:
    before = psutil.Process().memory_info().rss
    with pytest.raises(ChildFailedError, match="senseless"):
        ask(name)
    assert psutil.Process().memory_info().rss - before < 2**20


def test_memory_runs_out_and_the_process_lives(ask: Ask) -> None:
    assert ask("grow", decode_memory_mb=512) == "decoding it needs more memory than allowed"
    assert ask("start a thread") == "done"


DAEMON = """
import sys, time
from daemon.ingest import decode_process
from daemon.settings import IngestSettings
decode_process.CHILD_MODULE = sys.argv[1]
child = decode_process.DecodeChild(IngestSettings())
print(child.confinement() and child.pid, flush=True)
child._settings = IngestSettings.model_validate({"decode_seconds": 0.1})
decode_process.receive = lambda *_: time.sleep(60)  # this daemon will not look at its clock
with open(sys.argv[2], "rb") as file:
    child.ask(file.fileno(), (64, 64))
"""


@pytest.mark.parametrize(
    ("attempt", "how"),
    [("hang", signal.SIGKILL), ("loop", signal.SIGSTOP)],
    ids=["killed", "stopped"],
)
def test_a_process_outlives_neither_the_daemon_nor_its_time(
    tmp_path: Path, attempt: str, how: signal.Signals
) -> None:
    """Killed daemon: the kernel ends the child. Stopped daemon: its computing time runs out."""
    (tmp_path / "attempt").write_text(attempt)
    command = [sys.executable, "-c", DAEMON, HOSTILE, str(tmp_path / "attempt")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as daemon:
        assert daemon.stdout is not None
        child = psutil.Process(int(daemon.stdout.readline()))
        try:
            limited = partial(child.rlimit, psutil.RLIMIT_CPU)
            wait_until(lambda: limited()[0] != psutil.RLIM_INFINITY, "the child is at work")
            assert limited()[0] <= child.cpu_times().user + 4
            daemon.send_signal(how)
            wait_until(
                lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE,
                "the kernel has ended the child",
                60,
            )
        finally:
            daemon.kill()
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def test_the_limits_of_a_process(ask: Ask) -> None:
    child = DecodeChild(IngestSettings(decode_memory_mb=700))
    try:
        assert child.confinement() == list(sandbox.KERNEL_LIMITS)
        process = psutil.Process(child.pid)
        assert process.rlimit(psutil.RLIMIT_AS) == (700 * 2**20, 700 * 2**20)
        assert process.rlimit(psutil.RLIMIT_NOFILE) == (sandbox.OPEN_FILES, sandbox.OPEN_FILES)
        assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        assert process.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
        open_names = [os.readlink(f"/proc/{child.pid}/fd/{n}") for n in (0, 1, 2)]
        assert open_names == ["/dev/null"] * 3
        status = Path(f"/proc/{child.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
    finally:
        child.close()


def test_every_format_decodes_confined_and_loads_nothing_more(tmp_path: Path) -> None:
    child = DecodeChild(IngestSettings())
    found = {}
    try:
        for name, data in samples().items():
            (tmp_path / name).write_bytes(data)
            with (tmp_path / name).open("rb") as file:
                answer, payload = child.ask(file.fileno(), SIZE, fingerprint=True)
            found[name] = answer.get("width"), answer.get("refused") or answer.get("unreadable")
            assert len(payload) > 3 * SIZE[0] * SIZE[1]
    finally:
        child.close()
    assert {name: reason for name, (width, reason) in found.items() if width is None} == {}


NUMBERS = """
#define __ARCH_WANT_NEW_STAT
#include <stdio.h>
#include <{header}>
int main(void) {{
{lines}
return 0; }}
"""


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "asm/unistd_64.h"), ("aarch64", "asm-generic/unistd.h")],
)
def test_the_numbers_are_those_of_the_kernels_headers(
    tmp_path: Path, machine: str, header: str
) -> None:
    """As the compiler knows them; aarch64 uses the generic numbers."""
    column = seccomp_filter.ARCHITECTURES[machine].column
    every = seccomp_filter.CALLS | seccomp_filter.CHECKED_CALLS
    wanted = {name: pair[column] for name, pair in every.items()}
    lines = (f'#ifdef __NR_{name}\nprintf("{name} %d\\n", __NR_{name});\n#endif' for name in wanted)
    source = tmp_path / "numbers.c"
    source.write_text(NUMBERS.format(header=header, lines="\n".join(lines)))
    program = tmp_path / "numbers"
    built = subprocess.run(["gcc", "-o", program, source], capture_output=True, text=True)
    if built.returncode != 0 and "No such file" in built.stderr:
        pytest.skip(f"the kernel's headers for {machine} are not installed")
    assert built.returncode == 0, built.stderr
    told = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    found = {name: int(number) for name, number in map(str.split, told.splitlines())}
    assert found == {name: number for name, number in wanted.items() if number is not None}
