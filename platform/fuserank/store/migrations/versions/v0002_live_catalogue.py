"""The change log, the products as they are now, vectors of changed products, and generations."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "changes",
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("product_id", sa.String(256), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("record", sa.Text),
        sa.Column("timestamp", sa.BigInteger, nullable=False),
    )
    op.create_index("changes_by_product", "changes", ["product_id", "seq"])
    op.create_table(
        "products",
        sa.Column("product_id", sa.String(256), primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("record", sa.Text),
    )
    op.create_table(
        "delta_vectors",
        sa.Column("generation", sa.String(256), primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("product_id", sa.String(256), nullable=False),
        sa.Column("modalities", sa.LargeBinary),
        sa.Column("mask", sa.LargeBinary),
        sa.Column("fused", sa.LargeBinary),
    )
    op.create_index("delta_vectors_by_product", "delta_vectors", ["generation", "product_id", "seq"])
    op.create_table(
        "generations",
        sa.Column("id", sa.String(256), primary_key=True),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("base_seq", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("activated_at", sa.BigInteger),
    )


def downgrade() -> None:
    for table in ("generations", "delta_vectors", "products", "changes"):
        op.drop_table(table)
