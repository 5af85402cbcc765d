"""What the service's replicas say while a generation is made ready to answer."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("generations", sa.Column("asked_at", sa.BigInteger))
    op.add_column("generations", sa.Column("reason", sa.Text))
    op.create_table(
        "generation_parts",
        sa.Column("generation", sa.String(256), primary_key=True),
        sa.Column("deployment", sa.String(64), primary_key=True),
        sa.Column("replica", sa.String(64), primary_key=True),
        sa.Column("ready", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("generation_parts")
    op.drop_column("generations", "reason")
    op.drop_column("generations", "asked_at")
