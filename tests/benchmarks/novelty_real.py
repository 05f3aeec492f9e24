"""Does the promised false-novel rate hold on a real camera from summer into winter?

`timelapse_bay`: one frame an hour; the 700 of the summer are the first clustering, the 500 of the
winter stream in, and every alarm, of scene or place, is counted as false. Into the same stream a
run of another camera is spliced, as if the camera had been knocked over: it must be found.
"""

from pathlib import Path

import numpy as np

from tests.benchmarks.embedded import embedded
from tests.benchmarks.rows import Row
from tests.benchmarks.stream import Known, stream, worst_window

SUMMER = 700
WINDOW = 50
MARKS = ((0.01, 0.015, 0.08), (0.05, 0.065, 0.25))
"""Promise, most alarms of all frames, most in the worst window."""


def measure(dev: Path, work: Path) -> list[Row]:
    """The rows of the real stream."""
    bay = embedded(dev, "timelapse_bay", work)
    road = embedded(dev, "fixedcam_road", work)
    known = Known.of(bay.vectors[:SUMMER])
    rows: list[Row] = []
    for rate, most, worst in MARKS:
        judge = known.novelty(work, rate, bay.tiles[:SUMMER])
        answers = stream(judge, bay.vectors[SUMMER:], 10_000, bay.tiles[SUMMER:])
        alarms = np.array([answer.novel for answer in answers])
        share, window = float(alarms.mean()), worst_window(alarms, WINDOW)
        places = sum(answer.novelty == "place" for answer in answers)
        rows.append(
            Row(
                f"false novels, timelapse_bay, winter after summer, at {rate:.0%}",
                f"{share:.1%}, worst {WINDOW} frames {window:.0%}",
                f"at most {most:.1%}, worst {worst:.0%}",
                share <= most and window <= worst,
                f"{int(alarms.sum())} alarms, {places} of them of places",
            )
        )
    cut, spliced = SUMMER + 200, slice(60, 80)
    judge = known.novelty(work, 0.01, bay.tiles[:SUMMER])
    vectors = (bay.vectors[SUMMER:cut], road.vectors[spliced], bay.vectors[cut : cut + WINDOW])
    tiles = (bay.tiles[SUMMER:cut], road.tiles[spliced], bay.tiles[cut : cut + WINDOW])
    answers = stream(judge, np.concatenate(vectors), 10_000, np.concatenate(tiles))
    found = sum(answer.novel for answer in answers[200:220])
    rows.append(
        Row("20 frames of another scene in that stream, at 1%", f"{found} novel", "20", found == 20)
    )
    return rows
