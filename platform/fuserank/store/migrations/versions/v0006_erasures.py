"""Users whose data was erased."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("scrubbed", sa.Boolean, nullable=False),
    )
    nobody = sa.text("user_id IS NULL")
    for table in ("events", "impressions"):
        options = {"sqlite_where": nobody, "postgresql_where": nobody}
        op.create_index(f"{table}_by_session", table, ["session_id"], **options)  # type: ignore[arg-type]


def downgrade() -> None:
    for table in ("events", "impressions"):
        op.drop_index(f"{table}_by_session", table)
    op.drop_table("erasures")
