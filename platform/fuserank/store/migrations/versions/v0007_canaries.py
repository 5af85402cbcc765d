"""Policies that answer a share of the requests first, and what was decided on live answers."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
COLUMNS = {"canary": sa.String(32), "share": sa.Float(53), "since": sa.BigInteger(), "seen": sa.Text()}


def upgrade() -> None:
    for name, kind in COLUMNS.items():
        op.add_column("policy_switches", sa.Column(name, kind))
    op.create_table(
        "decisions",
        sa.Column("id", sa.String(320), primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("subject", sa.String(16), nullable=False),
        sa.Column("scenario", sa.String(32)),
        sa.Column("candidate", sa.String(256), nullable=False),
        sa.Column("incumbent", sa.String(256)),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("decisions")
    for name in COLUMNS:
        op.drop_column("policy_switches", name)
