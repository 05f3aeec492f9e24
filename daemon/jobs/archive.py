"""Archives: every picture is compared with every other, the copies of one become its duplicates.

Only for cameras of which the owner said that they are archives (daemon/dedup/archive.py). Pixel
digests and perceptual hashes are read once from the files and stored; the comparing is done anew
when anything it depends on has changed. Both work in processes of their own.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection

from daemon.jobs.child import Progress
from daemon.jobs.judging import too_young
from daemon.jobs.workshop import Workshop
from storage import archive, dedup, duplicate_runs, frames, meta, signatures
from storage.archive import Fingerprint
from storage.cameras import CameraRow
from storage.duplicate_words import Words, words

STRETCH_SECONDS: Final = 30.0
"""Of reading pixels between two commits: what a kill can cost."""
RULE: Final = 1
"""Raised when daemon/dedup/copy_rule.py decides otherwise: all archives are compared again."""
DONE_KEY: Final = "archive"
"""Keys in `meta`, with the camera's id: digest of what the stored verdicts were made from."""
RESEMBLANCE_KEY: Final = "resembles_archive"
"""Keys in `meta`, with the camera's id; storage/overview.py reads them."""
LEAST_PICTURES: Final = 30
LEAST_SIZES: Final = 5
"""Fewer pictures, or fewer sizes of them, say nothing of a folder."""
ALONE: Final = "kept: there is no copy of it in this archive"
LEFT: Final = "kept: it was compared as part of an archive"
NOT_COMPARED: Final = "kept, not compared with the archive: {}"


def judge_archive(
    workshop: Workshop, camera: CameraRow, progress: Progress, *, at_once: bool
) -> None:
    """Find the copies in an archive and write the verdicts.

    Args:
        workshop: What the job works with; the caller holds `files`.
        camera: The camera, of kind archive.
        progress: Told pictures read, then pictures compared.
        at_once: Also judge frames younger than `dedup.delay_seconds`.

    Raises:
        JobFailedError: A process failed; fingerprints before it stay, verdicts are as before.
        JobStoppedError: The daemon stops; likewise.
    """
    space = workshop.current_space()
    if space is None:
        return
    unreadable = read_pixels(workshop, camera, progress)
    young = None if at_once else too_young(workshop)
    with workshop.db.read() as connection:
        rows = archive.pictures(connection, camera.id, space[0], too_young=young)
        said = words(connection, camera.id)
        applied = duplicate_runs.applied(connection, camera.id)
        known = meta.get(connection, f"{DONE_KEY}:{camera.id}")
    rows = [row for row in rows if row.id not in applied]
    question = _question(rows, said, applied, workshop.settings.dedup.keeper)
    facts = json.dumps([RULE, space[1], question, sorted(unreadable.items())])
    digest = hashlib.sha256(facts.encode()).hexdigest()
    if digest == known:
        return
    parameters = {"state_dir": str(workshop.state_dir), "space_id": space[0]} | question
    with workshop.processes.run("daemon.jobs.archive_child", parameters, progress) as path:
        copies = json.loads(path.read_text())
    with workshop.db.write() as connection:
        _write_verdicts(connection, rows, said, copies, unreadable)
        duplicate_runs.release_orphans(connection)
        meta.put(connection, f"{DONE_KEY}:{camera.id}", digest)


def leave_archive(connection: Connection, camera_id: int) -> None:
    """Take back the verdicts of an archive, for its camera is of another kind by now.

    They take an overlay for nothing. What was applied stays; all else is judged again.
    """
    key = f"{DONE_KEY}:{camera_id}"
    if meta.get(connection, key) is not None:
        duplicate_runs.drop_near(connection, camera_id, LEFT)
        dedup.forget_states(connection, camera_id)
        meta.put(connection, key, None)


def note_resemblance(connection: Connection, camera: CameraRow) -> None:
    """Note for `status` whether a camera's folder looks like an archive; nothing follows from it.

    A camera has one size or two. Of a folder of photographs from anywhere no size makes up half,
    and no picture shows the view of the one before, so the change test finds no duplicate.
    """
    sizes = archive.picture_sizes(connection, camera.id)
    alike = (
        camera.kind != "archive"
        and sum(sizes) >= LEAST_PICTURES
        and len(sizes) >= LEAST_SIZES
        and sizes[0] <= sum(sizes) / 2
        and not archive.has_near_duplicates(connection, camera.id)
    )
    key = f"{RESEMBLANCE_KEY}:{camera.id}"
    if alike != meta.get(connection, key, False):
        meta.put(connection, key, alike)


def read_pixels(workshop: Workshop, camera: CameraRow, progress: Progress) -> dict[int, str]:
    """Fingerprint the pictures of a camera that have no fingerprint yet.

    Returns:
        Frame -> why its file cannot be decoded now.

    Raises:
        JobFailedError, JobStoppedError: As `judge_archive`.
    """
    unreadable: dict[int, str] = {}
    with workshop.db.read() as connection:
        left = len(archive.without_fingerprint(connection, camera.id))
    while left:
        parameters = {
            "state_dir": str(workshop.state_dir),
            "camera": camera.id,
            "skip": sorted(unreadable),
            "seconds": STRETCH_SECONDS,
            "ingest": workshop.settings.ingest.model_dump(mode="json"),
        }
        with workshop.processes.run("daemon.jobs.fingerprint_child", parameters, progress) as path:
            answer = json.loads(path.read_text())
        found = [
            Fingerprint(
                frame_id=frame_id,
                pixel_sha256=bytes.fromhex(pixels),
                perceptual_hash=None if bits is None else bytes.fromhex(bits),
            )
            for frame_id, pixels, bits in answer["found"]
        ]
        with workshop.db.write() as connection:
            archive.store_fingerprints(connection, found)
        unreadable |= {int(frame_id): str(why) for frame_id, why in answer["refused"].items()}
        left = int(answer["left"])
    return unreadable


def _question(
    rows: Sequence[Any], said: Words, applied: Mapping[int, int], policy: str
) -> dict[str, Any]:
    """What the process is asked: pictures by preference, those that stay, pairs kept apart."""
    followers = {row.id for row in rows if row.id in said.followed and row.duplicate_kind == "near"}
    compared = [
        row
        for row in rows
        if row.pixel_sha256 is not None and row.has_vector and row.id not in followers
    ]
    return {
        "ranked": ranked(compared, policy),
        "stay": sorted(said.decided | set(applied.values())),
        "apart": sorted(sorted(pair) for pair in said.apart),
    }


def ranked(rows: Sequence[Any], policy: str) -> list[list[int]]:
    """(frame id, rank) of pictures, the most preferred keeper first.

    Args:
        rows: With id, width, height (pixels), size (bytes), captured_ns.
        policy: Of `dedup.keeper`.

    The largest picture, of those the largest file, of those the oldest; pictures of one size are
    equally welcome. The policies `first` and `last` go by age alone. No policy looks at sharpness:
    the most pixels of one picture are the sharpest.
    """
    by_age = sorted(rows, key=lambda row: (row.captured_ns is None, row.captured_ns, row.id))
    if policy in ("first", "last"):
        by_age = by_age if policy == "first" else by_age[::-1]
        return [[int(row.id), rank] for rank, row in enumerate(by_age)]
    best = sorted(by_age, key=lambda row: (-row.width * row.height, -row.size))
    return [[int(row.id), -row.width * row.height] for row in best]


def _write_verdicts(
    connection: Connection,
    rows: Sequence[Any],
    said: Words,
    copies: Sequence[tuple[int, int, str]],
    unreadable: Mapping[int, str],
) -> None:
    """Store the verdicts on frames that are still here and of which no human decided."""
    keepers = {frame_id: (keeper_id, reason) for frame_id, keeper_id, reason in copies}
    counts = Counter(keeper_id for keeper_id, _ in keepers.values())
    present = set(signatures.here(connection, [int(row.id) for row in rows]))
    verdicts = []
    for row in rows:
        if row.id not in present or row.id in said.decided:
            continue
        copy = keepers.get(row.id)
        verdicts.append(
            {
                "id": int(row.id),
                "duplicate_kind": None if copy is None else "near",
                "duplicate_of": None if copy is None else copy[0],
                "change_score": None,
                "change_tile": None,
                "reason": copy[1] if copy else _why_kept(row, counts[row.id], unreadable),
                "judged": True,
            }
        )
    frames.update_frames(connection, verdicts)


def _why_kept(row: Any, copies: int, unreadable: Mapping[int, str]) -> str:
    if row.id in unreadable:
        return NOT_COMPARED.format(unreadable[row.id])
    if not row.has_vector:
        return NOT_COMPARED.format("it has no vector of the encoder in use")
    if copies:
        return f"kept: the best of {copies + 1} copies of one picture"
    return ALONE
