"""Folders become links while files are moved through them: the short form of the race."""

from pathlib import Path

import pytest

from tests.faults.injection import missing
from tests.faults.symlink_race import Race

SECONDS = 3.0
"""`python -m tests.faults.symlink_race` races for a minute."""


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_race_for_the_folders_changes_nothing_outside(tmp_path: Path) -> None:
    figures = Race(tmp_path).run(SECONDS, lambda _words: None)
    assert (figures.changed_outside, figures.lost) == (0, 0)
    assert figures.exchanges > 100
    assert sum(figures.done.values()) > 0, "some get through"
    assert sum(figures.refused.values()) > 0, "and some are met"
