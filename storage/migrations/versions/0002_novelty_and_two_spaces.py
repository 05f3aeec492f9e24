"""Novelty per camera, the owner's word on clusters, vectors of two embedding spaces side by side."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns and tables; rebuild the two tables whose key grows by the space."""
    for column in (
        sa.Column("pinned", sa.Boolean(), nullable=False, server_default=sa.text("0")),
        sa.Column("ignored", sa.Boolean(), nullable=False, server_default=sa.text("0")),
        sa.Column("merged_into", _ID, nullable=True),
    ):
        op.add_column("clusters", column)
    for column in (
        sa.Column("former_cluster_id", _ID, nullable=True),
        sa.Column("alpha", sa.Float(), nullable=True),
        sa.Column("scene_score", sa.Float(), nullable=True),
        sa.Column("place_score", sa.Float(), nullable=True),
        sa.Column("calibrates", sa.Boolean(), nullable=False, server_default=sa.text("0")),
        sa.Column("novel_tile", sa.JSON(), nullable=True),
    ):
        op.add_column("frames", column)
    op.create_index(
        "frames_calibration",
        "frames",
        ["camera_id", "id"],
        unique=False,
        sqlite_where=sa.text("calibrates"),
        postgresql_where=sa.text("calibrates"),
    )
    op.create_table(
        "camera_novelty",
        sa.Column("camera_id", _ID, sa.ForeignKey("cameras.id"), nullable=False),
        sa.Column("space_id", _ID, sa.ForeignKey("spaces.id"), nullable=False),
        sa.Column("alpha", sa.Float(), nullable=False),
        sa.Column("bank", sa.LargeBinary(), nullable=True),
        sa.Column("payload", sa.JSON(), nullable=True),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("camera_id", "space_id"),
    )
    _rebuild_embeddings()
    _rebuild_signatures()


def _rebuild_embeddings() -> None:
    op.rename_table("embeddings", "embeddings_0001")
    op.drop_index("embeddings_space", "embeddings_0001")
    op.create_table(
        "embeddings",
        sa.Column("frame_id", _ID, sa.ForeignKey("frames.id"), nullable=False),
        sa.Column("space_id", _ID, sa.ForeignKey("spaces.id"), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column("weight", _ID, nullable=False),
        sa.Column("scale", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("frame_id", "space_id"),
    )
    op.execute(
        "INSERT INTO embeddings (frame_id, space_id, vector, weight, scale)"
        " SELECT old.frame_id, old.space_id, old.vector, old.weight, CASE WHEN old.weight > 0 THEN"
        " (SELECT cluster.distance_scale FROM frames AS frame"
        "  JOIN clusters AS cluster ON cluster.id = frame.cluster_id"
        "  WHERE frame.id = old.frame_id) END FROM embeddings_0001 AS old"
    )
    op.drop_table("embeddings_0001")
    op.create_index("embeddings_space", "embeddings", ["space_id", "weight"], unique=False)


def _rebuild_signatures() -> None:
    op.rename_table("signatures", "signatures_0001")
    op.create_table(
        "signatures",
        sa.Column("frame_id", _ID, sa.ForeignKey("frames.id"), nullable=False),
        sa.Column("space_id", _ID, sa.ForeignKey("spaces.id"), nullable=False),
        sa.Column("grey", sa.LargeBinary(), nullable=False),
        sa.Column("tiles", sa.LargeBinary(), nullable=True),
        sa.Column("tile_shape", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("frame_id", "space_id"),
    )
    op.execute(
        "INSERT INTO signatures (frame_id, space_id, grey, tiles, tile_shape)"
        " SELECT old.frame_id, embedding.space_id, old.grey, old.tiles, old.tile_shape"
        " FROM signatures_0001 AS old JOIN embeddings AS embedding"
        " ON embedding.frame_id = old.frame_id"
    )
    op.drop_table("signatures_0001")


def downgrade() -> None:
    """Refused: vectors of a second space would be lost. A copy was made before the upgrade."""
    raise NotImplementedError("put the copy back that was made before the upgrade")
