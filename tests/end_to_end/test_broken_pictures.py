"""A folder full of what kills decoders: each file costs its own child, and the rest goes on.

One daemon takes it all: files that crash, hang, loop or eat memory in the decoding process (by a
library loaded into it), bombs, cut and foreign files, black frames and a camera that repeats
itself; and between them good pictures, all of which must come through.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.end_to_end.process import Daemon, Site, fill, picture
from tests.faults.decode_corpus import bombs, crowds, foreign, samples

IDENTICAL = int(os.environ.get("STILLWATCH_IDENTICAL", "60"))
"""Frames of one content; the full size is 500."""
FATES = ("crash", "hang", "loop", "grow")
DECODE_SECONDS = 1.0
GOOD = 24


def fate(name: str) -> bytes:
    """A file at which the loaded library strikes."""
    return f"fate: {name}".ljust(16).encode() + bytes(500)


@pytest.fixture(scope="module")
def crasher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes decoding processes die of certain files."""
    library = tmp_path_factory.mktemp("crasher") / "crasher.so"
    source = Path(__file__).parents[1] / "tools" / "decoder_crasher.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def halves() -> dict[str, bytes]:
    """Every kind of picture, cut; each half twice under different names."""
    cut = {
        f"{name}-{n}": data[: len(data) // 2] for name, data in samples().items() for n in (1, 2)
    }
    return {f"cut/{name}.jpg": data for name, data in cut.items()}


def delivered() -> dict[str, bytes]:
    """Everything that the folder gets, by path."""
    found = {f"good/{n}.jpg": picture(n) for n in range(GOOD)}
    found |= {f"fate/{name}.jpg": fate(name) for name in FATES}
    found |= {f"bomb/{name}.jpg": data for name, data in bombs().items()}
    found |= {f"crowd/{name}.jpg": data for name, data in crowds(2000).items()}
    found |= {f"foreign/{name}.jpg": data for name, data in foreign().items()}
    found |= {f"odd/{name}.jpg": data for name, data in samples().items()}
    found |= {f"same/{n:03}.jpg": picture(1000) for n in range(IDENTICAL)}
    return found | halves()


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, encoder_cache: Path, crasher: Path
) -> Iterator[tuple[Site, Daemon, int]]:
    """A daemon that has decided on everything, and its resident bytes before."""
    ingest = {"settle_seconds": 0.2, "decode_seconds": DECODE_SECONDS, "decode_memory_mb": 700}
    site = Site(tmp_path_factory.mktemp("broken"), {"ingest": ingest})
    with site.daemon(environment={"LD_PRELOAD": str(crasher)}) as daemon:
        fill(site.folder, {"first.jpg": picture(5000)})
        daemon.wait_until(lambda: decided(site, 1), "the first picture is decided")
        before = psutil.Process(daemon.process.pid).memory_info().rss
        files = delivered()
        fill(site.folder, files)
        daemon.wait_until(lambda: decided(site, len(files) + 1), "everything is decided", 150)
        yield site, daemon, before


def decided(site: Site, count: int) -> bool:
    found = site.status()["frames"]
    return bool(found["total"] == count and found["pending"] == 0)


def below(site: Site, folder: str) -> dict[str, dict[str, Any]]:
    """Rows of a folder, by name without extension."""
    rows = site.by_path()
    return {Path(p).stem: row for p, row in rows.items() if p.startswith(folder + "/")}


def test_a_file_that_kills_its_process_is_rejected_after_three(
    running: tuple[Site, Daemon, int],
) -> None:
    rows = below(running[0], "fate")
    assert {row["state"] for row in rows.values()} == {"rejected"}
    assert rows["crash"]["reason"] == "the decoder crashed on it (3 times)"
    late = f"decoding it takes longer than {DECODE_SECONDS:g} s (3 times)"
    assert rows["hang"]["reason"] == rows["loop"]["reason"] == late
    assert rows["grow"]["sha256"] is not None or "3 times" in rows["grow"]["reason"]


def test_bombs_foreign_and_cut_files_are_rejected_with_a_reason(
    running: tuple[Site, Daemon, int],
) -> None:
    for folder in ("bomb", "foreign", "cut"):
        for name, row in below(running[0], folder).items():
            assert row["state"] == "rejected", (folder, name, row)
            assert row["reason"] and row["duplicate_of"] is None and row["cluster"] is None


def test_everything_else_came_through(running: tuple[Site, Daemon, int]) -> None:
    site, daemon, _ = running
    for folder, count in (("good", GOOD), ("odd", len(samples())), ("crowd", 3)):
        rows = below(site, folder)
        assert len(rows) == count
        failed = {n: r["reason"] for n, r in rows.items() if r["state"] in ("pending", "rejected")}
        assert failed == {}
    for name, data in delivered().items():  # where it was, as it was
        assert (site.folder / name).read_bytes() == data
    assert "Traceback" not in daemon.said


def test_frames_of_one_content_are_grouped_by_hash(running: tuple[Site, Daemon, int]) -> None:
    rows = below(running[0], "same")
    states = [row["state"] for row in rows.values()]
    assert states.count("exact_duplicate") == IDENTICAL - 1
    (keeper,) = {row["id"] for row in rows.values() if row["state"] != "exact_duplicate"}
    assert {row["duplicate_of"] for row in rows.values()} == {keeper, None}


def test_the_daemon_paid_nothing_for_it(running: tuple[Site, Daemon, int]) -> None:
    _, daemon, before = running
    process = psutil.Process(daemon.process.pid)
    grown = process.memory_info().rss - before
    print(f"the daemon grew by {grown / 2**20:.1f} MiB over {len(delivered())} files")
    assert grown < 64 * 2**20
    commands = [" ".join(child.cmdline()) for child in process.children()]
    assert sum("decode_child" in command for command in commands) <= 2, commands


def test_any_change_of_a_rejected_file_reopens_it(running: tuple[Site, Daemon, int]) -> None:
    site, daemon, _ = running
    whole = {"crash": picture(6001), "hang": picture(6002)}
    fill(site.folder, {f"fate/{name}.jpg": data for name, data in whole.items()})
    rest = samples()["webp"][len(samples()["webp"]) // 2 :]
    with (site.folder / "cut" / "webp-1.jpg").open("ab") as file:
        file.write(rest)  # the broken transfer goes on

    def reopened() -> bool:
        rows = below(site, "fate") | below(site, "cut")
        return all(
            rows[name]["state"] not in ("rejected", "pending") for name in (*whole, "webp-1")
        )

    daemon.wait_until(reopened, "the mended files are taken", 90)
    twins = below(site, "cut")["webp-1"], below(site, "odd")["webp"]
    seen_first, later = sorted(twins, key=lambda row: int(row["id"][1:]))
    assert (later["state"], later["duplicate_of"]) == ("exact_duplicate", seen_first["id"])
    assert below(site, "cut")["webp-2"]["state"] == "rejected"
    site.verify()
