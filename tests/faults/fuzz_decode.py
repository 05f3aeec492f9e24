"""Mutated pictures through the real decoding process: `python -m tests.faults.fuzz_decode`.

Every file is a picture of tests/faults/decode_corpus.py with something done to it: bits flipped,
numbers made extreme, parts cut, doubled, swapped with another file, headers of one format before
the body of another. Each goes through a confined process as in the daemon. A picture or a reason is
right; a process that dies or hangs is a finding: the file is kept, and the exit code is 1.
"""

import argparse
import hashlib
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from daemon.ingest.decode_process import ChildFailedError, DecodeChild
from daemon.settings import IngestSettings
from tests.faults.decode_corpus import bombs, crowds, foreign, samples

SIZE = (64, 64)
DECODE_SECONDS = 10.0
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEAD_BYTES = 64
"""Where the numbers are that decide most; half of the changes fall here."""
Change = Callable[[random.Random, bytearray, Sequence[bytes]], None]


def _place(chance: random.Random, data: bytearray) -> int:
    near = min(len(data), HEAD_BYTES) if chance.random() < 0.5 else len(data)
    return chance.randrange(max(near, 1))


def flip(chance: random.Random, data: bytearray, _others: Sequence[bytes]) -> None:
    for _ in range(chance.choice((1, 1, 2, 4, 16, 64))):
        place = _place(chance, data)
        data[place : place + 1] = bytes([chance.randrange(256)])


def stretch(chance: random.Random, data: bytearray, _others: Sequence[bytes]) -> None:
    """An extreme number of 1 to 4 bytes, either way round."""
    width, place = chance.choice((1, 2, 4)), _place(chance, data)
    number = chance.choice(EXTREMES) & (256**width - 1)
    data[place : place + width] = number.to_bytes(width, chance.choice(("little", "big")))


def cut(chance: random.Random, data: bytearray, _others: Sequence[bytes]) -> None:
    start = _place(chance, data)
    del data[start : start + chance.choice((1, 4, 64, len(data)))]


def double(chance: random.Random, data: bytearray, _others: Sequence[bytes]) -> None:
    start = _place(chance, data)
    part = data[start : start + chance.choice((4, 12, 64, 1024))]
    data[start:start] = part * chance.choice((1, 2, 50))


def splice(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = chance.choice(others)
    start = chance.randrange(len(other))
    place = _place(chance, data)
    data[place : place + chance.choice((0, 64))] = other[start : start + 2048]


CHANGES: Sequence[Change] = (flip, flip, stretch, stretch, cut, double, splice)


def mutate(chance: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A file with one to five changes."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3, 5))):
        chance.choice(CHANGES)(chance, changed, others)
    return bytes(changed)


@dataclass
class Fuzzer:
    """One decoding process after the other, and what came of the files."""

    seed: int
    findings: Path
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    crashes: int = 0
    peak_bytes: int = 0

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        kept = dict(samples()) | {f"foreign {k}": v for k, v in foreign().items()}
        kept |= {f"bomb {k}": v for k, v in bombs().items()} | crowds(20)
        self._corpus = list(kept.values())
        self._child = self._start()
        self._file = os.memfd_create("fuzz")

    @staticmethod
    def _start() -> DecodeChild:
        child = DecodeChild(IngestSettings(decode_seconds=DECODE_SECONDS, decode_memory_mb=1024))
        child.confinement()
        return child

    @property
    def files(self) -> int:
        return self.outcomes.total()

    def one(self) -> None:
        """Make a file and have it decoded."""
        data = mutate(self._chance, self._chance.choice(self._corpus), self._corpus)
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, data, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        try:
            answer, _ = self._child.ask(self._file, SIZE, fingerprint=True)
        except ChildFailedError as exc:
            self._keep(data, str(exc))
            self._child = self._start()
            return
        reason = answer.get("refused") or answer.get("unreadable")
        outcome = "refused" if "refused" in answer else "unreadable" if reason else "taken"
        self.outcomes[outcome] += 1
        if outcome == "unreadable":  # bytes in memory are always readable
            self._keep(data, str(reason))
        self.reasons[str(reason or answer["format"])[:60]] += 1
        if self.files % 200 == 0:
            memory = psutil.Process(self._child.pid).memory_info().rss
            self.peak_bytes = max(self.peak_bytes, memory)

    def _keep(self, data: bytes, why: str) -> None:
        self.outcomes["killed the process"] += 1
        self.crashes += 1
        self.findings.mkdir(parents=True, exist_ok=True)
        path = self.findings / hashlib.sha256(data).hexdigest()[:16]
        path.write_bytes(data)
        print(f"FOUND {path}: {why}", flush=True)

    def close(self) -> None:
        self._child.close()
        os.close(self._file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz for a while; 1 when a file killed its process."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz_decode", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--seed", type=int, default=1, help="the same files for the same seed (1)")
    parser.add_argument("--findings", type=Path, help="where files are kept that kill a process")
    chosen = parser.parse_args(arguments)
    findings = chosen.findings or Path(tempfile.gettempdir()) / "stillwatch-fuzz"
    fuzzer = Fuzzer(chosen.seed, findings)
    start = told = time.monotonic()
    try:
        while (now := time.monotonic()) < start + chosen.seconds:
            fuzzer.one()
            if now > told + 5:
                told = now
                print(f"{now - start:.0f} s: {fuzzer.files:,} files, {fuzzer.crashes} found")
    finally:
        fuzzer.close()
    print(f"files delivered\t{fuzzer.files:,}")
    for outcome, count in sorted(fuzzer.outcomes.items()):
        print(f"{outcome}\t{count:,}")
    print(f"kinds of answer\t{len(fuzzer.reasons)}")
    print(f"memory of the process at most, MB\t{fuzzer.peak_bytes / 1e6:.0f}")
    print(f"seconds\t{time.monotonic() - start:.0f}")
    return 1 if fuzzer.crashes else 0


if __name__ == "__main__":
    sys.exit(main())
