"""The decoding processes, really started, killed, stopped and starved."""

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from daemon.ingest import decode_process
from daemon.ingest.decode_process import CHILD_MODULE, ChildFailedError, DecodeChild
from daemon.ingest.decoder import DecodePool
from daemon.ingest.settling import stat_key
from daemon.messages import DecodedImage, RefusedFile, SettledFile
from daemon.settings import IngestSettings
from daemon.signature import unpack_grey
from tests.ingest_tools import encoded, scene, wait_until

ROOT = Path(__file__).parents[2]
SIZE = (224, 224)


def children() -> list[psutil.Process]:
    """The decoding processes of this test process."""
    found = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if CHILD_MODULE in process.cmdline():
                found.append(process)
    return found


class Pool:
    """A running pool over one folder, and what it delivered."""

    def __init__(self, folder: Path, **values: float) -> None:
        settings = IngestSettings.model_validate({"decode_children": 1} | values)
        self.folder = folder
        self.results: queue.Queue[DecodedImage | RefusedFile] = queue.Queue()
        self.pool = DecodePool(settings, SIZE, {1: os.fsencode(folder)}, self.results.put)
        self.pool.start()

    def settled(self, name: str) -> SettledFile:
        key = stat_key(os.lstat(self.folder / name))
        return SettledFile(camera_id=1, path=os.fsencode(name), stat=key, changed_at=0.0)

    def put(self, *names: str) -> None:
        for name in names:
            assert self.pool.try_put(self.settled(name))

    def take(self) -> DecodedImage | RefusedFile:
        return self.results.get(timeout=60)

    def refused(self) -> RefusedFile:
        result = self.take()
        assert isinstance(result, RefusedFile)
        return result

    def image(self) -> DecodedImage:
        result = self.take()
        assert isinstance(result, DecodedImage), result
        return result

    def warm(self) -> psutil.Process:
        """Have the child decode something; returns it."""
        (self.folder / "warm.jpg").write_bytes(encoded(scene(99)))
        self.put("warm.jpg")
        self.image()
        (child,) = children()
        return child


@pytest.fixture
def make_pool(tmp_path: Path) -> Iterator[Callable[..., Pool]]:
    pools: list[Pool] = []

    def make(**values: float) -> Pool:
        pools.append(Pool(tmp_path, **values))
        return pools[-1]

    yield make
    for pool in pools:
        pool.pool.close()
    wait_until(lambda: not children(), "every decoding process has ended")


def test_a_picture(make_pool: Callable[..., Pool], tmp_path: Path) -> None:
    pool = make_pool()
    data = encoded(scene(1, 800, 400), quality=95)
    (tmp_path / "a.jpg").write_bytes(data)
    pool.put("a.jpg")
    image = pool.image()
    assert (image.format, image.width, image.height) == ("JPEG", 800, 400)
    assert image.pixels.shape == (*SIZE, 3) and image.pixels.dtype == np.uint8
    assert unpack_grey(image.grey).shape == (160, 320)
    whole = np.asarray(scene(1, 800, 400).resize((8, 6), 4), dtype=np.int16)
    shrunk = np.asarray(image.pixels[18::37, 14::28], dtype=np.int16)
    assert np.abs(whole - shrunk).mean() < 12  # squeezed, corner to corner: nothing cropped
    assert pool.pool.pending == 0


def test_many_files_by_several_children(make_pool: Callable[..., Pool], tmp_path: Path) -> None:
    pool = make_pool(decode_children=2)
    names = [f"{number}.jpg" for number in range(40)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(encoded(scene(number)))
    pool.put(*names)
    digests = {pool.image().sha256 for _ in names}
    assert len(digests) == 40


def test_a_full_queue_says_so(make_pool: Callable[..., Pool], tmp_path: Path) -> None:
    pool = make_pool(decode_seconds=60)
    child = pool.warm()
    child.suspend()
    file = pool.settled("warm.jpg")
    taken = 0
    while pool.pool.try_put(file):
        taken += 1
        assert taken < 1000
    assert taken >= 64 and pool.pool.pending == taken
    child.resume()
    for _ in range(taken):
        pool.image()
    wait_until(lambda: pool.pool.pending == 0, "nothing is in hand")


def test_a_child_killed_at_work_is_replaced(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool()
    child = pool.warm()
    child.suspend()
    pool.put("warm.jpg", "warm.jpg")
    os.kill(child.pid, signal.SIGKILL)
    pool.image()
    pool.image()
    (replacement,) = children()
    assert replacement.pid != child.pid


def test_a_hung_child_is_ended_and_the_file_tried_again(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(decode_seconds=2)
    child = pool.warm()
    child.suspend()
    started = time.monotonic()
    pool.put("warm.jpg")
    pool.image()
    assert 2 <= time.monotonic() - started < 20
    wait_until(lambda: not child.is_running(), "the hung child has ended")


@pytest.mark.parametrize(
    ("attempt", "reason"),
    [
        ("crash", "the decoder crashed on it (3 times)"),
        ("hang", "decoding it takes longer than 0.3 s (3 times)"),
        ("say nonsense", "the decoder gave a senseless answer to it (3 times)"),
        ("answer with nothing", "the decoder gave a senseless answer to it (3 times)"),
    ],
)
def test_three_strikes(
    make_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch, attempt: str, reason: str
) -> None:
    monkeypatch.setattr(decode_process, "CHILD_MODULE", "tests.tools.hostile_decode_child")
    pool = make_pool(decode_seconds=0.3 if attempt == "hang" else 20)
    (pool.folder / "bad.jpg").write_text(attempt)
    pool.put("bad.jpg")
    refused = pool.refused()
    assert refused.final
    assert refused.reason == reason


def test_a_process_that_does_not_start_costs_no_file_its_chance(
    make_pool: Callable[..., Pool], caplog: pytest.LogCaptureFixture
) -> None:
    pool = make_pool()
    child = pool.warm()
    (pool.folder / "good.jpg").write_bytes(encoded(scene()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_process, "CHILD_MODULE", "no.such.module")
        child.kill()
        for _ in range(4):  # more often than a file has strikes
            pool.put("good.jpg")
            refused = pool.refused()
            assert (refused.final, refused.unreadable) == (False, True)
            assert refused.reason == "the decoding process does not start"
    assert "see `stillwatch doctor`" in caplog.text
    pool.put("good.jpg")
    pool.image()


def test_a_child_that_dies_or_hangs_is_an_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(scene()))
    fd = os.open(tmp_path / "a.jpg", os.O_RDONLY)
    for how, message in ((signal.SIGKILL, "crashed"), (signal.SIGSTOP, "longer than 0.5 s")):
        child = DecodeChild(IngestSettings(decode_seconds=0.5))
        child.confinement()
        os.kill(child.pid, how)
        with pytest.raises(ChildFailedError, match=message):
            child.ask(fd, SIZE)
        child.close()
        child.close()
    os.close(fd)
    assert children() == []


def test_a_child_ends_with_the_daemon(tmp_path: Path) -> None:
    script = (
        "import time\nfrom daemon.ingest.decoder import DecodeChild\n"
        "from daemon.settings import IngestSettings\n"
        "print(DecodeChild(IngestSettings()).pid, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as daemon:
        assert daemon.stdout is not None
        child = psutil.Process(int(daemon.stdout.readline()))
        daemon.kill()
    wait_until(lambda: not child.is_running() or child.status() == "zombie", "the child ends")


def test_a_picture_that_needs_too_much_memory(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(decode_memory_mb=512)
    child = pool.warm()
    image = scene(1, 8000, 8000)  # 192 MB of pixels, several copies of which are needed
    (pool.folder / "large.png").write_bytes(encoded(image, "PNG", compress_level=1))
    (pool.folder / "large.bin").touch()
    os.truncate(pool.folder / "large.bin", 400 * 1024 * 1024)  # its bytes alone are too many
    (pool.folder / "huge.bin").touch()
    os.truncate(pool.folder / "huge.bin", 513 * 1024 * 1024)
    pool.put("large.png", "large.bin", "huge.bin", "warm.jpg")
    reasons = [pool.refused() for _ in range(3)]
    assert all(refused.final and refused.sha256 for refused in reasons)
    assert "more memory than allowed" in reasons[0].reason
    assert [refused.reason for refused in reasons[1:]] == [
        "the file is too large to be a camera's picture"
    ] * 2
    pool.image()
    (fresh,) = children()
    assert fresh.pid != child.pid  # the first one had other pictures before: a fresh one judged
    assert fresh.memory_info().rss < 512 * 1024 * 1024  # it refused and lives


def test_the_limits_of_a_child(make_pool: Callable[..., Pool]) -> None:
    child = make_pool(decode_memory_mb=700).warm()
    assert child.rlimit(psutil.RLIMIT_AS) == (700 * 2**20, 700 * 2**20)
    assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert child.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
    assert child.num_threads() == 1


def test_a_file_that_changed_after_it_settled(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool()
    pool.warm()
    file = pool.settled("warm.jpg")
    with open(pool.folder / "warm.jpg", "ab") as opened:
        opened.write(b"more")
    assert pool.pool.try_put(file)
    refused = pool.refused()
    assert (refused.reason, refused.final) == ("changing", False)


def test_a_file_that_changes_while_it_is_read(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(decode_seconds=60)
    child = pool.warm()
    child.suspend()
    pool.put("warm.jpg")
    asked = psutil.Process()
    wait_until(
        lambda: any(f.path.endswith("warm.jpg") for f in asked.open_files()), "the file is open"
    )
    with open(pool.folder / "warm.jpg", "ab") as opened:
        opened.write(b"more")
    child.resume()
    refused = pool.refused()
    assert (refused.reason, refused.final) == ("changing", False)


@pytest.mark.parametrize("form", ["BMP", "TIFF", "PNG", "JPEG"])
def test_a_file_cut_while_it_is_decoded_kills_nothing(
    make_pool: Callable[..., Pool], form: str
) -> None:
    """Some readers map the file and die of it (SIGBUS); here its bytes are read first."""
    pool = make_pool(decode_seconds=60)
    child = pool.warm()
    data = encoded(scene(3, 1500, 1000).convert("L"), form)
    path = pool.folder / "cut"
    for waited in (0.0, 0.002, 0.01):
        path.write_bytes(data)
        file = pool.settled("cut")
        busy = child.cpu_times().user
        assert pool.pool.try_put(file)
        deadline = time.monotonic() + waited
        while time.monotonic() < deadline and child.cpu_times().user == busy:
            pass
        os.truncate(path, len(data) // 3)
        result = pool.take()
        if isinstance(result, RefusedFile):
            assert (result.final, result.reason) == (False, "changing")
        path.unlink()
    pool.put("warm.jpg")
    pool.image()
    assert [process.pid for process in children()] == [child.pid]


def test_what_is_no_regular_file_is_never_followed_or_waited_for(
    make_pool: Callable[..., Pool],
) -> None:
    pool = make_pool()
    pool.warm()
    (pool.folder / "link.jpg").symlink_to("warm.jpg")
    os.mkfifo(pool.folder / "pipe.jpg")
    (pool.folder / "folder.jpg").mkdir()
    (pool.folder / "gone.jpg").touch()
    pool.put("link.jpg", "pipe.jpg", "folder.jpg")
    gone = pool.settled("gone.jpg")
    (pool.folder / "gone.jpg").unlink()
    assert pool.pool.try_put(gone)
    answers = [pool.refused() for _ in range(4)]
    reasons = ["vanished", "no regular file", "no regular file", "vanished"]
    assert [(a.reason, a.final) for a in answers] == list(
        zip(reasons, [False, True, True, False], strict=True)
    )


def test_a_refused_picture_has_its_digest(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool()
    (pool.folder / "page.jpg").write_bytes(b"<html></html>")
    pool.put("page.jpg")
    refused = pool.refused()
    assert refused.final and not refused.unreadable
    assert "web page" in refused.reason
    assert refused.sha256 is not None and len(refused.sha256) == 32


FORBIDDEN = """
import json, os, sys
from pathlib import Path
from tests.integration.test_decoder import Pool
pool = Pool(Path(sys.argv[1]))
try:
    pool.warm()
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    pool.put("secret.jpg", "open.jpg")
    first, second = pool.refused(), pool.image()
finally:
    pool.pool.close()
print(json.dumps([first.reason, first.final, first.unreadable, second.format]))
"""


@pytest.mark.root
def test_a_file_without_permission_is_not_refused_for_ever() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    folder = Path(tempfile.mkdtemp(prefix="stillwatch-"))  # pytest's own is root's alone
    try:
        folder.chmod(0o755)
        for name, mode in (("secret.jpg", 0o600), ("open.jpg", 0o644)):
            (folder / name).write_bytes(encoded(scene()))
            (folder / name).chmod(mode)
        done = subprocess.run(
            [sys.executable, "-c", FORBIDDEN, str(folder)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=60,
            check=False,
        )
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["no permission to read it", False, True, "JPEG"]


def test_a_child_imports_only_what_it_needs() -> None:
    code = f"import json, sys, {CHILD_MODULE}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    heavy = {"tensorflow", "keras", "sqlalchemy", "alembic", "pydantic", "typer", "rich"}
    heavy |= {"sklearn", "scipy", "hdbscan", "faiss", "ai_edge_litert", "watchdog", "apscheduler"}
    assert loaded & heavy == set()
    assert "cli" not in loaded and "storage" not in loaded
