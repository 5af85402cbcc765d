"""Events and impressions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("event_id", sa.String(128), primary_key=True),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("user_id", sa.String(256)),
        sa.Column("session_id", sa.String(256)),
        sa.Column("product_id", sa.String(256), nullable=False),
        sa.Column("request_id", sa.String(256)),
        sa.Column("position", sa.Integer),
        sa.Column("value", sa.Float(53)),
        sa.Column("timestamp", sa.BigInteger, nullable=False),
        sa.Column("stored", sa.BigInteger, nullable=False),
    )
    op.create_index("events_by_user", "events", ["user_id", "timestamp"])
    op.create_index("events_by_request", "events", ["request_id"])
    op.create_index("events_by_stored", "events", ["stored"])
    op.create_table(
        "impressions",
        sa.Column("request_id", sa.String(256), primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("scenario", sa.String(256)),
        sa.Column("query", sa.Text),
        sa.Column("user_id", sa.String(256)),
        sa.Column("session_id", sa.String(256)),
        sa.Column("candidate_ids", sa.Text),
        sa.Column("product_ids", sa.Text),
        sa.Column("propensities", sa.Text),
        sa.Column("slate_propensity", sa.Float(53)),
        sa.Column("features", sa.Text),
        sa.Column("policy", sa.String(256)),
        sa.Column("generation", sa.String(256)),
        sa.Column("timestamp", sa.BigInteger, nullable=False),
        sa.Column("stored", sa.BigInteger, nullable=False),
    )
    op.create_index("impressions_by_user", "impressions", ["user_id", "timestamp"])
    op.create_index("impressions_by_stored", "impressions", ["stored"])


def downgrade() -> None:
    op.drop_table("impressions")
    op.drop_table("events")
