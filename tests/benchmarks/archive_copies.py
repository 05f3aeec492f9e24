"""Copies in an archive: what is found of each kind of change, and what is joined wrongly.

`neardup` of the data: photographs with eight made versions each, and groups from other projects.
The same changes are made here to photographs of `labelled_clothing`, which the rule was not chosen
on. Decoded, encoded, ranked and compared by the product's own code.
"""

import csv
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.dedup.archive import find_copies
from daemon.dedup.copy_rule import ArchivePictures, CopyRule
from daemon.ingest.decode_process import DecodeChild
from daemon.jobs.archive import ranked
from daemon.settings import IngestSettings
from tests.benchmarks.embedded import Embedded, embedded
from tests.benchmarks.rows import Row

Picture = NDArray[np.uint8]

FOUND_AT_LEAST: Final = 0.97
ORIGINAL: Final = "original"
COVERED: Final = "12345678"
"""First letters of the kinds that the issue names; flips and quarter turns are not covered."""
SPEED_ROWS: Final = 100_000
SPEED_SECONDS: Final = 300.0
"""Of one thread: "minutes, not hours"."""


@dataclass(frozen=True, slots=True)
class Groups:
    """An archive as the product groups it. `keeper` (n,): the row that stands for each row."""

    pictures: ArchivePictures
    keeper: NDArray[np.int64]


def group(dev: Path, shown: Embedded) -> Groups:
    """Group the pictures of a folder; rows and ids are those of `shown.paths`."""
    prints = list(_fingerprints([dev / shown.name / path for path in shown.paths]))
    order = [row for row, _ in ranked(prints, "largest")]
    ranks = [rank for _, rank in ranked(prints, "largest")]
    pictures = ArchivePictures(
        ids=np.array(order),
        rank=np.array(ranks),
        vectors=shown.vectors[order],
        hashes=np.stack([prints[row].bits for row in order]),
        featureless=np.array([prints[row].featureless for row in order]),
        digests=[prints[row].digest for row in order],
        sizes=np.array([(prints[row].width, prints[row].height) for row in order]),
    )
    keeper = np.arange(len(order))
    for copy in find_copies(pictures):
        keeper[copy.frame_id] = copy.keeper_id
    return Groups(pictures, keeper)


def _fingerprints(files: Sequence[Path]) -> Iterator[SimpleNamespace]:
    child = DecodeChild(IngestSettings())
    try:
        for row, path in enumerate(files):
            fd = os.open(path, os.O_RDONLY)
            try:
                answer, _ = child.ask(fd, (1, 1), fingerprint=True)
            finally:
                os.close(fd)
            bits = answer["perceptual_hash"]
            yield SimpleNamespace(
                id=row,
                captured_ns=None,
                width=answer["width"],
                height=answer["height"],
                size=path.stat().st_size,
                digest=bytes.fromhex(str(answer["pixel_sha256"])),
                featureless=bits is None,
                bits=np.frombuffer(bytes.fromhex(str(bits or "00" * 8)), dtype=np.uint8),
            )
    finally:
        child.close()


def joined_wrongly(found: Groups, truth: Sequence[str]) -> int:
    """Pictures that stand in a group with a keeper of another truth."""
    return sum(truth[row] != truth[keeper] for row, keeper in enumerate(found.keeper.tolist()))


def passing_wrongly(found: Groups, truth: Sequence[str]) -> int:
    """Pairs of different truth that pass the rule, grouped or not."""
    a, b = np.triu_indices(len(truth), 1)
    pairs = CopyRule(found.pictures).passing(a, b)
    names = np.array([truth[row] for row in found.pictures.ids])
    return int((names[pairs.row] != names[pairs.other]).sum())


def found_by_kind(
    found: Groups, groups: Sequence[str], kinds: Sequence[str]
) -> dict[str, tuple[int, int]]:
    """Kind -> (versions in one group with their original, versions)."""
    original = {groups[row]: row for row, kind in enumerate(kinds) if kind == ORIGINAL}
    counts: dict[str, list[bool]] = defaultdict(list)
    for row, kind in enumerate(kinds):
        if kind != ORIGINAL and groups[row] in original:
            counts[kind].append(found.keeper[row] == found.keeper[original[groups[row]]])
    return {kind: (sum(hits), len(hits)) for kind, hits in sorted(counts.items())}


def neardup_rows(dev: Path, work: Path) -> Iterator[Row]:
    """The labelled versions of the data."""
    shown = embedded(dev, "neardup", work)
    found = group(dev, shown)
    with (dev / "neardup" / "groups.csv").open(newline="", encoding="utf-8") as stream:
        known = {row["path"]: row for row in csv.DictReader(stream)}
    groups = [known[path]["group"] for path in shown.paths]
    kinds = [known[path]["kind"] for path in shown.paths]
    others = []
    for kind, (hits, count) in found_by_kind(found, groups, kinds).items():
        if kind[0] in COVERED:
            yield _found_row(f"neardup, {kind[2:]}", hits, count)
        else:
            others.append(f"{kind} {hits} of {count}")
    yield Row("neardup, kinds of other projects", ", ".join(others), "", None)
    wrong, passing = joined_wrongly(found, groups), passing_wrongly(found, groups)
    measured = f"{wrong} joined, {passing} pairs pass"
    yield Row("neardup, across groups", measured, "0", wrong + passing == 0)


def _found_row(name: str, hits: int, count: int) -> Row:
    return Row(name, f"{hits} of {count}", "97 % found", hits >= FOUND_AT_LEAST * count)


def made_versions(picture: Picture, rng: np.random.Generator) -> dict[str, tuple[Picture, int]]:
    """Kind -> (picture, JPEG quality): the changes of neardup, made here."""
    height, width = picture.shape[:2]
    top, left = round(0.04 * height), round(0.04 * width)
    written = picture.copy()
    cv2.rectangle(written, (0, height - height // 12), (width // 2, height), (0, 0, 0), -1)
    place, size = (4, height - height // 40), height / 600
    cv2.putText(written, "2026-05-01 12:00:00", place, 0, size, (255, 255, 255), 1)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 3, 1)
    turned = cv2.warpAffine(picture, turn, (width, height), borderValue=(128, 128, 128))
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    noisy = np.clip(picture + rng.normal(0, 8, picture.shape), 0, 255)
    made = {
        "jpeg q40": (picture, 40),
        "half size": (half, 92),
        "brighter": (cv2.convertScaleAbs(picture, alpha=1.1), 92),
        "crop 4 %": (picture[top : height - top, left : width - left], 92),
        "overlay": (written, 92),
        "noise": (noisy, 92),
        "3 degree turn": (turned, 92),
    }
    return {
        kind: (np.asarray(one, dtype=np.uint8), quality) for kind, (one, quality) in made.items()
    }


def clothing_rows(dev: Path, work: Path, photos: int) -> Iterator[Row]:
    """Photographs that the rule was not chosen on: all different, and changed here."""
    shown = embedded(dev, "labelled_clothing", work)
    found = group(dev, shown)
    wrong, passing = (count(found, shown.paths) for count in (joined_wrongly, passing_wrongly))
    measured = f"{wrong} joined, {passing} pairs pass"
    yield Row(f"{len(shown.paths)} photographs, all different", measured, "0", wrong + passing == 0)
    place = work / f"versions-{photos}"
    _write_versions(
        dev, [shown.paths[row] for row in range(0, len(shown.paths), 2)][:photos], place
    )
    made = embedded(work, place.name, work)
    names = [Path(path).stem.partition("=") for path in made.paths]
    groups, kinds = [name for name, _, _ in names], [kind for _, _, kind in names]
    found = group(work, made)
    for kind, (hits, count) in found_by_kind(found, groups, kinds).items():
        yield _found_row(f"made here, {kind}", hits, count)
    wrong = joined_wrongly(found, groups)
    yield Row("made here, across pictures", f"{wrong} joined", "0", wrong == 0)


def _write_versions(dev: Path, paths: Sequence[str], place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        picture = cv2.imread(str(dev / "labelled_clothing" / path), cv2.IMREAD_COLOR)
        if picture is None:
            raise ValueError(f"{path} cannot be read")
        original: Picture = np.asarray(picture, dtype=np.uint8)
        versions = made_versions(original, np.random.default_rng(number))
        for kind, (made, quality) in ({ORIGINAL: (original, 95)} | versions).items():
            target = place / f"{number:03d}={kind}.jpg"
            if not target.exists():
                cv2.imwrite(str(target), made, [cv2.IMWRITE_JPEG_QUALITY, quality])


def reported_rows(dev: Path, work: Path) -> Iterator[Row]:
    """What the mode would do where it does not belong, and where it is hard."""
    fruits = embedded(dev, "labelled_fruits", work)
    found = group(dev, fruits)
    wrong = joined_wrongly(found, [str(label) for label in fruits.labels])
    passing = passing_wrongly(found, [str(label) for label in fruits.labels])
    measured = f"{wrong} joined across classes, {passing} pairs pass"
    yield Row("fruits on a turntable", f"{measured}; {_removed(found)}", "", None)
    dash = group(dev, embedded(dev, "dashcam_highway", work))
    note = "why the owner sets the kind and nothing guesses it"
    yield Row("a moving camera as an archive", _removed(dash), "", None, note)


def _removed(found: Groups) -> str:
    count = len(found.keeper)
    return f"{(found.keeper != np.arange(count)).sum()} of {count} removed"


def speed_row(count: int) -> Row:
    """Many pictures, each fourth an original, spectra and likeness as photographs have them."""
    rng = np.random.default_rng(0)
    originals = count // 4
    of = np.concatenate([np.arange(originals), rng.integers(0, originals, count - originals)])
    rows, columns = np.indices((8, 8))
    spectrum = rng.normal(0, 1, (originals, 64)) / (1 + rows + columns).ravel()
    terms = (
        spectrum[of] + rng.normal(0, 0.01, (count, 64)) * (np.arange(count) >= originals)[:, None]
    )
    basis = rng.standard_normal((200, 1280)).astype(np.float32)
    vectors = (rng.standard_normal((originals, 200)).astype(np.float32) @ basis)[of]
    vectors += rng.standard_normal(vectors.shape, dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pictures = ArchivePictures(
        ids=np.arange(count),
        rank=np.zeros(count, dtype=np.int64),
        vectors=vectors,
        hashes=np.packbits(terms > np.median(terms, axis=1, keepdims=True), axis=1),
        featureless=np.zeros(count, dtype=bool),
        digests=[b"%d" % row for row in range(count)],
        sizes=np.ones((count, 2), dtype=np.int64),
    )
    cpu = time.process_time()
    copies = find_copies(pictures)
    cpu = time.process_time() - cpu
    wrong = sum(of[copy.frame_id] != of[copy.keeper_id] for copy in copies)
    allowed = SPEED_SECONDS * count / SPEED_ROWS
    name = f"{count:,} pictures compared"
    note = f"{len(copies):,} copies found, {wrong} wrong"
    return Row(name, f"{cpu:.0f} CPU-s", f"at most {allowed:.0f} s", cpu <= allowed, note)


def measure(dev: Path, work: Path, quick: bool) -> list[Row]:
    """All rows; `quick` takes fewer photographs and pictures."""
    parts: tuple[Callable[[], Iterator[Row]], ...] = (
        lambda: neardup_rows(dev, work),
        lambda: clothing_rows(dev, work, 20 if quick else 60),
        lambda: reported_rows(dev, work),
    )
    rows = [row for part in parts for row in part()]
    return [*rows, speed_row(SPEED_ROWS // 5 if quick else SPEED_ROWS)]
