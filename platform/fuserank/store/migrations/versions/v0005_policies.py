"""What policies that order live answers have learnt, from which rows, and how they are switched."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    for table in ("events", "impressions"):  # what is there already was not answered by such a policy
        op.add_column(table, sa.Column("learnt", sa.Boolean, nullable=False, server_default=sa.true()))
        new = sa.text("NOT learnt")
        op.create_index(f"{table}_unlearnt", table, ["stored"], sqlite_where=new, postgresql_where=new)
    op.create_table(
        "policy_states",
        sa.Column("scenario", sa.String(32), primary_key=True),
        sa.Column("features", sa.String(64), primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "policy_switches",
        sa.Column("scenario", sa.String(32), primary_key=True),
        sa.Column("kind", sa.String(32)),
        sa.Column("frozen", sa.Boolean),
        sa.Column("changed", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("policy_switches")
    op.drop_table("policy_states")
    for table in ("events", "impressions"):
        op.drop_index(f"{table}_unlearnt", table)
        op.drop_column(table, "learnt")
