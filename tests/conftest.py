"""Fixtures that several test folders share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def encoder_cache() -> Path:
    """The default cache folder with the default encoder prepared (ten seconds if it is not)."""
    from daemon.encoders import registry

    folder = registry.default_cache_dir()
    registry.prepare("efficientnet_lite0", folder, lambda stage, done, total: None)
    return folder
