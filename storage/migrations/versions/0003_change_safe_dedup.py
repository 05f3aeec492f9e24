"""Keepers that are exchanged, archives, trash that is pruned by trusted time."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns; a known frame gets its numbers when a job needs them."""
    for column in (
        sa.Column("sharpness", sa.Float(), nullable=True),
        sa.Column("exposure", sa.Float(), nullable=True),
        sa.Column("run_settled", sa.Boolean(), nullable=False, server_default=sa.text("0")),
        sa.Column("pixel_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("perceptual_hash", sa.LargeBinary(), nullable=True),
        sa.Column("trashed_at", sa.Float(), nullable=True),
        sa.Column("trashed_uptime", sa.Float(), nullable=True),
    ):
        op.add_column("frames", column)


def downgrade() -> None:
    """Refused: a trashed frame would lose its date. A copy was made before the upgrade."""
    raise NotImplementedError("put the copy back that was made before the upgrade")
