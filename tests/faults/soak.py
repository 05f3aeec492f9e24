"""A soak: the real daemon on a simulated camera for hours, everything on; does anything grow?

    python -m tests.faults.soak --hours 0.5 --per-second 10 --out FOLDER

Frames of 50 KB come at that pace; reclusters, dedup, filing, trash and deletion run with short
times. Every few seconds memory, descriptors and threads of the daemon and its children, the sizes
of database and write-ahead log, the latency of the newest frames and what waits to be judged are
sampled into FOLDER/samples.csv. At the end: each slope per hour with its interval of 95 % (the
first quarter is left out), FOLDER/soak.png, a look for every delivered picture, and `verify`. Ends
with 1 where a figure with a mark surely grows, or a picture is lost.
"""

import argparse
import csv
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Final

import cv2
import psutil

from storage.errors import StillwatchError
from storage.reading import Reader
from tests.benchmarks.rows import Row, all_hold, markdown, table
from tests.end_to_end.process import Daemon, Site
from tests.faults.camera import CameraProcess, Lens
from tests.faults.evidence import broken_rules, counts, lost_pictures
from tests.faults.slopes import Slope, slope
from tests.faults.soak_plot import Chart, soak_plot

MEGABYTE: Final = 1 << 20
TRASH_DAYS: Final = 60 / 86400
VIEWS: Final = 400
"""Different frames; then they come again, an hour of the camera's clock later."""
SETTINGS: Final[dict[str, dict[str, object]]] = {
    "ingest": {"settle_seconds": 0.5},
    "clustering": {"first_at_frames": 100, "growth_share": 0.02},
    "dedup": {"delay_seconds": 2.0, "every_seconds": 20.0},
    "filing": {"enabled": True, "mode": "move", "brake_share": 1.0, "brake_files": 1_000_000},
    "prune": {
        "enabled": True,
        "trash_after_days": TRASH_DAYS,
        "delete_after_days": TRASH_DAYS,
        # A goal that cannot be met: prune looks after every plan, not once a day.
        "max_gb": 1e-6,
        "max_share_per_day": 0.99,
        "brake_share": 0.99,
        "brake_files": 1_000_000,
    },
}
SETTLED_SECONDS: Final = 600.0
_UNJUDGED: Final = "stage = 'embedded' AND judged = 0 AND coalesce(duplicate_kind, '') <> 'exact'"


@dataclass(frozen=True, slots=True)
class Sample:
    """One look. Memory and sizes in MB, latency in milliseconds; NaN where there is none."""

    seconds: float
    daemon_rss: float
    decoders_rss: float
    jobs_rss: float
    descriptors: int
    threads: int
    wal: float
    database: float
    latency_p50: float
    latency_p99: float
    unjudged: int
    pending: int
    frames: int
    on_disk: int


TOLERANCES: Final = {
    "daemon_rss": 10.0,
    "decoders_rss": 10.0,
    "descriptors": 2.0,
    "threads": 1.0,
    "wal": 10.0,
    "unjudged": 200.0,
    "pending": 50.0,
}
"""Change per hour that counts as none; figures without one grow with the frames, or hang on what
else the machine does."""


class Sampler:
    """Looks at a running daemon from outside."""

    def __init__(self, site: Site, daemon: Daemon) -> None:
        self._site = site
        self._process = psutil.Process(daemon.process.pid)
        self._begun = time.monotonic()
        self._last_frame = 0

    def look(self) -> Sample:
        """One sample.

        Raises:
            psutil.NoSuchProcess: The daemon has ended.
        """
        decoders, jobs = self._children()
        with Reader(self._site.state) as reader:
            latencies = sorted(
                row[0]
                for row in reader.rows(
                    "SELECT latency_ms FROM frames WHERE latency_ms IS NOT NULL AND id > ?",
                    (self._last_frame,),
                )
            )
            (self._last_frame,) = reader.one("SELECT coalesce(max(id), 0) FROM frames")
            unjudged, pending, frames, on_disk = reader.one(
                f"SELECT sum({_UNJUDGED}), sum(stage = 'pending'), count(*),"
                " sum(presence = 'here') FROM frames"
            )
        return Sample(
            seconds=round(time.monotonic() - self._begun, 2),
            daemon_rss=self._process.memory_info().rss / MEGABYTE,
            decoders_rss=decoders,
            jobs_rss=jobs,
            descriptors=self._process.num_fds(),
            threads=self._process.num_threads(),
            wal=_size(self._site.state / "stillwatch.db-wal"),
            database=_size(self._site.state / "stillwatch.db"),
            latency_p50=_quantile(latencies, 0.5),
            latency_p99=_quantile(latencies, 0.99),
            unjudged=unjudged or 0,
            pending=pending or 0,
            frames=frames,
            on_disk=on_disk or 0,
        )

    def _children(self) -> tuple[float, float]:
        """Memory of the decoders and of the processes of jobs."""
        decoders = jobs = 0.0
        for child in self._process.children(recursive=True):
            try:
                size = child.memory_info().rss / MEGABYTE
                if "daemon.ingest.decode_child" in child.cmdline():
                    decoders += size
                else:
                    jobs += size
            except psutil.NoSuchProcess:
                continue
        return decoders, jobs


def _size(path: Path) -> float:
    return path.stat().st_size / MEGABYTE if path.exists() else 0.0


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else math.nan


def sampled(
    site: Site, daemon: Daemon, seconds: float, every: float, out: Path
) -> Iterator[Sample]:
    """Samples as they come, each written to the file at once."""
    sampler, due, begun = Sampler(site, daemon), time.monotonic(), time.monotonic()
    with (out / "samples.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Sample)])
        writer.writeheader()
        while time.monotonic() - begun < seconds:
            try:
                sample = sampler.look()
            except psutil.NoSuchProcess as exc:
                raise AssertionError(f"the daemon has ended: {daemon.said[-2000:]}") from exc
            except StillwatchError:  # the database is being made
                continue
            writer.writerow(asdict(sample))
            file.flush()
            yield sample
            due += every
            time.sleep(max(0.0, due - time.monotonic()))


def run(
    out: Path, seconds: float, per_second: float, every: float
) -> tuple[list[Sample], list[Row]]:
    """The soak and the look afterwards."""
    site = Site(out / "site", SETTINGS)
    lens = Lens(VIEWS, large=True)
    camera = CameraProcess(site.folder, out / "delivered.txt", per_second, lens)
    samples = []
    try:
        with site.daemon() as daemon:
            camera.start()
            told = 0.0
            for sample in sampled(site, daemon, seconds, every, out):
                samples.append(sample)
                if sample.seconds - told >= 60:
                    told = sample.seconds
                    _tell(sample)
            camera.end()
            delivered = camera.delivered()
            recorded = partial(_recorded, site, frozenset(delivered))
            daemon.wait_until(recorded, "everything is recorded", SETTLED_SECONDS)
    finally:
        camera.end()
    draw(samples, slopes_of(samples), out)  # before the long look, which somebody may break off
    lost, broken = lost_pictures(site, delivered), broken_rules(site)
    return samples, [
        Row("files delivered", str(len(delivered)), "", None, counts(site)),
        Row("files lost", str(len(lost)), "0", not lost, "; ".join(lost[:3])),
        Row("violations of I1 to I7", str(len(broken)), "0", not broken, "; ".join(broken[:3])),
    ]


def _recorded(site: Site, names: frozenset[str]) -> bool:
    rows = site.table("SELECT original_path FROM frames WHERE stage <> 'pending'")
    return names <= {row[0].decode() for row in rows}


def _tell(sample: Sample) -> None:
    print(
        f"{sample.seconds / 60:.0f} min, {sample.frames} frames, daemon {sample.daemon_rss:.0f} MB,"
        f" {sample.descriptors} descriptors, {sample.threads} threads, WAL {sample.wal:.1f} MB,"
        f" p99 {sample.latency_p99:.0f} ms, {sample.unjudged} not judged",
        flush=True,
    )


def slopes_of(samples: Sequence[Sample]) -> dict[str, Slope]:
    """The slope of every figure; empty where the run was too short."""
    seconds = [sample.seconds for sample in samples]
    found = {}
    for name in (field.name for field in fields(Sample) if field.name != "seconds"):
        try:
            found[name] = slope(seconds, [getattr(sample, name) for sample in samples])
        except ValueError:
            continue
    return found


def slope_rows(slopes: dict[str, Slope]) -> list[Row]:
    """A row for each figure; those with a tolerance must not grow."""
    rows = []
    for name, found in slopes.items():
        interval = f"{found.per_hour:+.2f} an hour ({found.low:+.2f} to {found.high:+.2f})"
        tolerance = TOLERANCES.get(name)
        if tolerance is None:
            rows.append(Row(name, interval, "", None, f"mean {found.mean:.1f}"))
            continue
        verdict = found.verdict(tolerance)
        note = f"mean {found.mean:.1f}, {verdict}"
        holds = False if verdict == "grows" else (None if "short" in verdict else True)
        rows.append(Row(name, interval, f"within {tolerance:g}", holds, note))
    return rows


def draw(samples: Sequence[Sample], slopes: dict[str, Slope], out: Path) -> None:
    """Write soak.png."""
    seconds = [sample.seconds for sample in samples]
    charts = [
        Chart(
            name,
            f"{slopes[name].per_hour:+.2f} an hour" if name in slopes else "",
            [float(getattr(sample, name)) for sample in samples],
        )
        for name in (field.name for field in fields(Sample) if field.name != "seconds")
    ]
    title = f"Soak of {seconds[-1] / 3600:.2f} hours, {samples[-1].frames:,} frames"
    cv2.imwrite(str(out / "soak.png"), soak_plot(title, seconds, charts)[..., ::-1])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--hours", type=float, default=0.5)
    parser.add_argument("--per-second", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two samples")
    parser.add_argument("--out", type=Path, required=True, help="an empty folder")
    chosen = parser.parse_args(arguments)
    out = chosen.out.resolve()
    if out.exists() and list(out.iterdir()):
        parser.error(f"{out} is not empty")
    out.mkdir(parents=True, exist_ok=True)
    samples, facts = run(out, chosen.hours * 3600, chosen.per_second, chosen.every)
    slopes = slopes_of(samples)
    rows = [*slope_rows(slopes), *facts]
    peaks = [(name, f"{max(getattr(s, name) for s in samples):.1f}") for name in TOLERANCES]
    text = table(rows) + "\n\n" + markdown(("highest", "value"), peaks)
    (out / "soak.md").write_text(text + "\n")
    print(text)
    return 0 if all_hold(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
