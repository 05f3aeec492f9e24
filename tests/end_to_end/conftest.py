"""Fixtures of the end-to-end tests."""

from pathlib import Path

import pytest

from tests.end_to_end.process import Site


@pytest.fixture
def site(tmp_path: Path, encoder_cache: Path) -> Site:
    """Empty folders and quick settings; the encoder is prepared, so that starts are short."""
    return Site(tmp_path)
