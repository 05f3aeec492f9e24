"""The big fault loops in a small form: power cuts, kills without a rest, a short soak.

In full they are `python -m tests.faults.power_cut`, `kill_loop` and `soak`; STILLWATCH_CUTS and
STILLWATCH_KILLS make these longer.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.process import ROOT
from tests.faults import kill_loop, soak
from tests.faults.loop_disk import why_impossible
from tests.faults.slopes import slope

CUTS = int(os.environ.get("STILLWATCH_CUTS", "4"))
KILLS = int(os.environ.get("STILLWATCH_KILLS", "6"))


@pytest.mark.root
@pytest.mark.timeout(120 + 20 * CUTS)
@pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible()))
def test_power_cuts_lose_nothing_that_was_confirmed(tmp_path: Path, encoder_cache: Path) -> None:
    """A process of its own, for it moves into a mount namespace of its own."""
    command = [sys.executable, "-m", "tests.faults.power_cut", "--cuts", str(CUTS)]
    done = subprocess.run(
        [*command, "--cold", "--work", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"| cuts | {CUTS} |" in done.stdout


@pytest.mark.timeout(120 + 30 * KILLS)
def test_kills_without_a_rest_lose_nothing(tmp_path: Path, encoder_cache: Path) -> None:
    outcome = kill_loop.run(
        tmp_path,
        KILLS,
        os.getpid(),
        per_second=12,
        check_every=KILLS,
        tell=False,
        aimed_seconds=4.0,
        warm=False,
    )
    assert (outcome.lost, outcome.forgotten, outcome.broken) == ([], [], [])
    assert outcome.strikes.moments == KILLS
    assert outcome.delivered > 0


def test_a_short_soak_samples_and_draws_everything(tmp_path: Path, encoder_cache: Path) -> None:
    samples, facts = soak.run(tmp_path, seconds=4, per_second=10, every=0.2)
    assert {row.name: row.measured for row in facts if row.holds is False} == {}
    assert len(samples) >= 10
    assert all(sample.daemon_rss > 50 and sample.descriptors > 5 for sample in samples)
    assert (tmp_path / "soak.png").stat().st_size > 5_000
    assert len((tmp_path / "samples.csv").read_text().splitlines()) == len(samples) + 1


def test_a_slope_is_told_from_noise() -> None:
    seconds = [5.0 * number for number in range(720)]
    ripple = [(number * 7919) % 13 - 6.0 for number in range(720)]
    flat = slope(seconds, [200 + wave for wave in ripple])
    assert (flat.verdict(10), flat.grows(10)) == ("flat", False)
    leak = slope(
        seconds, [200 + wave + at / 3600 * 25 for at, wave in zip(seconds, ripple, strict=True)]
    )
    assert leak.verdict(10) == "grows"
    assert leak.per_hour == pytest.approx(25, abs=2)
    assert slope(seconds, [7.0] * 720).verdict(1) == "flat"
    assert (
        slope(seconds[:60], [200 + wave for wave in ripple[:60]]).verdict(1) == "too short to tell"
    )
    with pytest.raises(ValueError, match="too few"):
        slope(seconds[:20], ripple[:20])


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for main, option in ((kill_loop.main, "--work"), (soak.main, "--out")):
        with pytest.raises(SystemExit):
            main([option, str(tmp_path)])
    assert os.listdir(tmp_path) == ["mine.txt"]
