"""The order in which frames are delivered does not decide which of them are duplicates."""

import random
from pathlib import Path

from daemon.demo.render import render_jpeg
from tests.end_to_end.process import Site, fill

COUNT = 30
BATCHES = 2


def delivered() -> dict[str, bytes]:
    """A frame every ten seconds, dated by its name."""
    return {
        f"yard-20260601-{10 + second // 3600:02d}{second // 60 % 60:02d}{second % 60:02d}.jpg": (
            render_jpeg(number, 7)
        )
        for number, second in ((number, 10 * number) for number in range(COUNT))
    }


def groups(site: Site) -> dict[str, str | None]:
    """Keeper of every frame, both by the path they were delivered under."""
    paths = {row["id"]: row["original_path"] for row in site.rows()}
    return {row["original_path"]: paths.get(row["duplicate_of"]) for row in site.rows()}


def test_late_and_shuffled_frames_give_the_groups_of_an_orderly_delivery(
    tmp_path: Path, encoder_cache: Path
) -> None:
    frames = delivered()
    # an exchanged keeper is settled and not reopened, so it depends on when the run had ended
    settings: dict[str, dict[str, object]] = {
        "ingest": {"settle_seconds": 0.2},
        "dedup": {"keeper": "first"},
    }
    orderly, shuffled = (Site(tmp_path / name, settings) for name in ("orderly", "shuffled"))
    fill(orderly.folder, frames)
    orderly.once()
    names = sorted(frames)
    random.Random(5).shuffle(names)
    for start in range(BATCHES):
        fill(shuffled.folder, {name: frames[name] for name in names[start::BATCHES]})
        shuffled.once()
    expected = groups(orderly)
    assert sum(keeper is not None for keeper in expected.values()) >= COUNT // 4
    assert groups(shuffled) == expected
