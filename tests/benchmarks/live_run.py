"""A live run that is killed in the middle: nothing lost, everything undone in the end.

    python tests/benchmarks/live_run.py FOLDER [--rate 5]

Starts the daemon on an empty folder, copies FOLDER in at `rate` files a second, kills the daemon
with SIGKILL half way, starts it again, waits until everything is recorded, then: `verify`,
`dedup apply --yes`, filing (`run --once --file`), `undo` of every run, newest first - and compares
names, bytes, mtimes and modes with what was delivered. Ends with 1 if anything differs.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

IGNORED = {"csv", "txt", "json", "xml", "xmp", "md", "log", "mp4", "avi", "db"}


def ask(state: Path, *arguments: str) -> tuple[int, str]:
    """Run a command of the program; its exit code and standard output."""
    command = [sys.executable, "-m", "cli.main", "--state", str(state), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def start(state: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start the daemon."""
    command = [sys.executable, "-m", "cli.main", "--state", str(state), "run", str(folder)]
    log = (state.parent / "daemon.log").open("ab")
    return subprocess.Popen(command, stderr=log, stdout=log)


def facts(folder: Path) -> dict[str, tuple[str, int, int]]:
    """SHA-256, mtime_ns and mode of every candidate by its path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        own = below.parts[0] == "stillwatch"
        if path.is_file() and path.suffix[1:].lower() not in IGNORED and not own:
            status = path.stat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(below)] = (digest, status.st_mtime_ns, status.st_mode)
    return found


def deliver(files: list[Path], folder: Path, rate: float) -> None:
    """Copy files in at a steady pace, times kept."""
    begin = time.monotonic()
    for number, file in enumerate(files):
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
        shutil.copy2(file, folder / file.name)


def wait_recorded(state: Path, count: int) -> dict[str, Any]:
    """Wait until this many frames are recorded and none is pending; the status object."""
    deadline = time.monotonic() + 120
    while True:
        code, text = ask(state, "status", "--json")
        status: dict[str, Any] = json.loads(text) if code == 0 else {}
        numbers = status.get("frames", {})
        if numbers.get("total") == count and numbers.get("pending") == 0:
            return status
        if time.monotonic() > deadline:
            raise SystemExit(f"not all recorded: {numbers}")
        time.sleep(0.5)


def undo_everything(state: Path) -> list[tuple[str, int]]:
    """Undo every run that moved files, newest first."""
    done = []
    runs = [json.loads(line) for line in ask(state, "runs", "--json")[1].splitlines()]
    for run in sorted(runs, key=lambda r: -int(r["id"][1:])):
        if run["kind"] in ("dedup", "filing") and run["state"] in ("applied", "partly"):
            done.append((run["id"], ask(state, "undo", run["id"], "--yes")[0]))
    return done


def main() -> int:
    """Do it and print what happened."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate", type=float, default=5.0)
    options = parser.parse_args()
    files = sorted(p for p in options.folder.iterdir() if p.suffix[1:].lower() not in IGNORED)
    with tempfile.TemporaryDirectory() as work:
        folder, state = Path(work) / "camera", Path(work) / "state"
        folder.mkdir()
        daemon = start(state, folder)
        half = len(files) // 2
        deliver(files[:half], folder, options.rate)
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.wait()
        print(f"killed with SIGKILL after {half} of {len(files)} files", flush=True)
        daemon = start(state, folder)
        deliver(files[half:], folder, options.rate)
        status = wait_recorded(state, len(files))
        delivered = facts(folder)
        rows = [json.loads(line) for line in ask(state, "frames", "--json")[1].splitlines()]
        once = sorted(r["path"] for r in rows) == sorted(delivered)
        print(f"{len(files)} files, {len(rows)} rows, each file one row: {once}")
        print(f"latency ms: {status['latency_ms']}, clusters {status['clusters']}")
        verified = [ask(state, "verify")[0]]
        plan, _ = ask(state, "dedup", "plan", "--new", "--json")
        applied = ask(state, "dedup", "apply", "--yes", "--json")
        print(f"dedup plan: exit {plan}; dedup apply: exit {applied[0]} {applied[1].strip()[:200]}")
        daemon.send_signal(signal.SIGTERM)
        print(f"SIGTERM: exit {daemon.wait()}")
        filed = ask(state, "run", str(folder), "--once", "--file", "--json")[0]
        verified.append(ask(state, "verify")[0])
        print(f"filing: exit {filed}; left in place: {len(facts(folder))} files")
        print(f"undo: {undo_everything(state)}")
        verified.append(ask(state, "verify")[0])
        same = facts(folder) == delivered
        print(f"verify after ingest, filing, undo: {['ok' if v == 0 else v for v in verified]}")
        print(f"every file under its old name with its bytes, mtime and mode: {same}")
        left = folder / "stillwatch"
        print(f"left in stillwatch/: {[p.name for p in left.rglob('*') if p.is_file()]}")
    return 0 if once and same and not any(verified) else 1


if __name__ == "__main__":
    sys.exit(main())
