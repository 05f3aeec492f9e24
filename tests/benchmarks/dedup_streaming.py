"""The dedup judge as it runs beside a camera: no labels, one pass, noise learnt on the way.

    python tests/benchmarks/dedup_streaming.py DEV_FOLDER WORK_FOLDER [--tools FOLDER] [--pixels]
    python tests/benchmarks/dedup_streaming.py FOLDER WORK_FOLDER --one [--reasons]

Rows: what is removed of the quiet frames, what of the changes is merged, and how many objects that
were put into a camera's own frames (`insert_objects.py` of the tools folder, 0.5 and 1 % of the
picture) were merged with a frame that lacks them. `--one` judges a single folder of pictures with
`labels.csv` or `truth.csv` beside them, if any. `--pixels` leaves the encoder's tile maps out.
WORK_FOLDER keeps tile maps and sequences between runs.
"""

import argparse
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import cv2

from tests.benchmarks.judged import Judged, judge
from tests.benchmarks.rows import Row, all_hold, table
from tests.benchmarks.sequences import Footage, footage, read_folder

WITH_OBJECTS: Final = ("fixedcam_road", "fixedcam_tunnel", "fixedcam_plaza", "timelapse_bay")
UNMARKED: Final = "timelapse_bay"
"""Its night frames hide objects that nobody could see: reported, without a mark."""
MOST_MERGED: Final = {0.005: 4.0, 0.01: 1.5}
"""Percent of the put-in objects that may be merged, by their share of the picture."""
LEAST_RATE: Final = {"fixedcam_road": 30.0, "fixedcam_plaza": 12.0}
"""Frames a second of thread CPU time that judging must reach."""


def camera(folder: Path, work: Path | None) -> Footage:
    """A folder of pictures as the judge takes it."""
    return footage(folder.name, list(read_folder(folder)), work)


def plain_rows(dev: Path, work: Path | None) -> Iterator[Row]:
    """The cameras as they are."""
    road = judge(camera(dev / "fixedcam_road", work))
    yield _quiet("road", road, 88, 95)
    yield Row(
        "road: changes merged, events lost",
        f"{road.crossed} of {road.labelled_changes}, {road.lost}",
        "0, 0",
        road.crossed == road.lost == 0,
    )
    yield _rate("fixedcam_road", road)
    tunnel = judge(camera(dev / "fixedcam_tunnel", work))
    share = tunnel.removed_share
    yield Row("tunnel: all frames removed", f"{share:.1f} %", ">= 30 %", share >= 30, "aim 45 %")
    plaza = judge(camera(dev / "fixedcam_plaza", work))
    yield Row("plaza: all frames removed", f"{plaza.removed_share:.1f} %", "", None)
    yield _rate("fixedcam_plaza", plaza)
    trap = judge(camera(dev / "cameratrap_box1", work))
    yield _quiet("box1", trap, 39, 60)
    kept = trap.crossed == trap.lost == 0
    yield Row("box1: the visit kept", "yes" if kept else "no", "yes", kept)
    for name in ("dashcam_highway", "factory_pcb"):
        found = judge(camera(dev / name, work))
        yield Row(f"{name}: called duplicate", str(found.removed), "0", found.removed == 0)


def object_rows(dev: Path, work: Path, tools: Path, maps: Path | None) -> Iterator[Row]:
    """Objects put in, by size and camera."""
    for area, most in MOST_MERGED.items():
        for name in WITH_OBJECTS:
            folder = work / f"{name}_{area}"
            if not (folder / "truth.csv").exists():
                _insert(tools, dev / name, folder, area)
            found = judge(camera(folder, maps))
            share = 100 * found.merged / max(1, found.objects)
            yield Row(
                f"{name}: {100 * area:g} % objects merged",
                f"{found.merged} of {found.objects}",
                f"<= {most} %, aim 0",
                None if name == UNMARKED else share <= most,
                f"visible {found.visible_merged} of {found.visible},"
                f" removed {found.removed_share:.0f} % of all",
            )


def measure(dev: Path, work: Path, tools: Path | None = None, *, pixels: bool = False) -> list[Row]:
    """The whole protocol; without the tools folder only what needs no put-in objects."""
    maps = None if pixels else work
    rows = list(plain_rows(dev, maps))
    return rows if tools is None else rows + list(object_rows(dev, work, tools, maps))


def one(folder: Path, work: Path | None, *, reasons: bool) -> None:
    """Print the figures of a single folder at the default limits."""
    found = judge(camera(folder, work))
    print(
        f"{folder.name}: {found.frames} frames, {found.removed_share:.1f} % removed,"
        f" quiet {found.quiet_share:.1f} % (halves {found.halves[0]:.0f}/{found.halves[1]:.0f}),"
        f" changes merged {found.crossed}, events lost {found.lost},"
        f" objects merged {found.merged} of {found.objects},"
        f" {found.milliseconds:.1f} ms a frame"
    )
    if reasons:
        words = Counter(re.split(r" f\d+|:", v.reason)[0] for v in found.verdicts.verdicts)
        for reason, count in words.most_common():
            print(f"  {count:5d} {reason}")


def main() -> int:
    """Print the table; 1 where a mark is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dev", type=Path, metavar="DEV_FOLDER")
    parser.add_argument("work", type=Path, metavar="WORK_FOLDER")
    parser.add_argument("--tools", type=Path, metavar="FOLDER")
    parser.add_argument("--pixels", action="store_true", help="without the encoder's tile maps")
    parser.add_argument("--one", action="store_true", help="DEV_FOLDER is one folder of pictures")
    parser.add_argument("--reasons", action="store_true", help="with --one: count the reasons")
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    if chosen.one:
        one(chosen.dev, None if chosen.pixels else chosen.work, reasons=chosen.reasons)
        return 0
    rows = measure(chosen.dev, chosen.work, chosen.tools, pixels=chosen.pixels)
    print(table(rows))
    return int(not all_hold(rows))


def _quiet(name: str, found: Judged, must: float, aim: float) -> Row:
    share = found.quiet_share
    return Row(
        f"{name}: quiet removed",
        f"{share:.1f} %",
        f">= {must} %",
        share >= must,
        f"aim {aim} %; halves {found.halves[0]:.0f}/{found.halves[1]:.0f} %",
    )


def _rate(name: str, found: Judged) -> Row:
    rate = 1000 / found.milliseconds
    must = LEAST_RATE[name]
    return Row(f"{name}: frames a second", f"{rate:.0f}", f">= {must:g}", rate >= must, "CPU time")


def _insert(tools: Path, source: Path, target: Path, area: float) -> None:
    command = [sys.executable, str(tools / "insert_objects.py"), str(source), str(target)]
    subprocess.run([*command, "--area", str(area)], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
