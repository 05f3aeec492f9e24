"""State folders as earlier versions wrote them."""

import sqlite3
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

import storage
from storage.database_file import DATABASE_NAME

FIRST_CLUSTER: Final = 7
FIRST_ROWS: Final = """
INSERT INTO cameras (id, name, root, kind, kind_source, state, writable, ignored, created_at)
    VALUES (1, 'porch', X'2F61', 'fixed', 'default', 'watching', 1, 0, 0);
INSERT INTO spaces (id, name, encoder, weights_sha256, dim, created_at)
    VALUES (1, 'lite@1', 'lite', 'ab', 2, 0);
INSERT INTO clusters (id, space_id, name, state, distance_scale, created_at)
    VALUES (7, 1, 'drive', 'active', 0.02, 0);
INSERT INTO frames (id, camera_id, path, original_path, arrived_at, presence, stage, alarm, noise,
    judged, strikes, cluster_id) VALUES
    (3, 1, X'61', X'61', 0, 'here', 'embedded', 0, 0, 0, 0, 7),
    (4, 1, X'62', X'62', 0, 'here', 'embedded', 0, 0, 0, 0, 7);
INSERT INTO embeddings (frame_id, space_id, vector, weight) VALUES
    (3, 1, X'003C0000', 2), (4, 1, X'003C0000', 0);
INSERT INTO signatures (frame_id, grey) VALUES (3, X'01');
"""
"""Two frames of one cluster, with their vectors, in the first schema."""


def first_schema(state_dir: Path) -> None:
    """A database as the first release wrote it."""
    upgrade(state_dir, "0001")
    writer = sqlite3.connect(state_dir / DATABASE_NAME)
    writer.executescript(FIRST_ROWS)
    writer.close()


def write_old_database(state_dir: Path, revision: str) -> None:
    """The rows of the first schema in a database of this one."""
    first_schema(state_dir)
    upgrade(state_dir, revision)


def upgrade(state_dir: Path, revision: str) -> None:
    """Bring a database to a schema, without the checks and the backup of the program."""
    engine = create_engine(f"sqlite:///{state_dir / DATABASE_NAME}")
    config = Config()
    config.set_main_option("script_location", str(Path(storage.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()
