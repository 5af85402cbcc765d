"""The database's tables as SQLAlchemy Core; migrations/versions/ creates and changes them, never `create_all`.

Times are milliseconds since 1970, UTC. `stored` is when a row was accepted, which orders late events by arrival. Lists
are JSON text: they are read as a whole, never searched.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
    true,
)

METADATA = MetaData()
_NOBODY: dict[str, Any] = {kind: text("user_id IS NULL") for kind in ("sqlite_where", "postgresql_where")}
_UNLEARNT: dict[str, Any] = {kind: text("NOT learnt") for kind in ("sqlite_where", "postgresql_where")}

EVENTS = Table(
    "events",
    METADATA,
    Column("event_id", String(128), primary_key=True),
    Column("type", String(32), nullable=False),
    Column("user_id", String(256)),
    Column("session_id", String(256)),
    Column("product_id", String(256), nullable=False),
    Column("request_id", String(256)),
    Column("position", Integer),
    Column("value", Float(53)),
    Column("timestamp", BigInteger, nullable=False),
    Column("stored", BigInteger, nullable=False),
    Column("learnt", Boolean, nullable=False, server_default=true()),  # policies.py: nothing more to learn from it
    Index("events_by_user", "user_id", "timestamp"),
    Index("events_by_request", "request_id"),
    Index("events_by_stored", "stored"),
    Index("events_by_session", "session_id", **_NOBODY),
    Index("events_unlearnt", "stored", **_UNLEARNT),
)

IMPRESSIONS = Table(
    "impressions",
    METADATA,
    Column("request_id", String(256), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("scenario", String(256)),
    Column("query", Text),
    Column("user_id", String(256)),
    Column("session_id", String(256)),
    Column("candidate_ids", Text),
    Column("product_ids", Text),
    Column("propensities", Text),
    Column("slate_propensity", Float(53)),
    Column("features", Text),
    Column("policy", String(256)),
    Column("generation", String(256)),
    Column("timestamp", BigInteger, nullable=False),
    Column("stored", BigInteger, nullable=False),
    Column("learnt", Boolean, nullable=False, server_default=true()),
    Index("impressions_by_user", "user_id", "timestamp"),
    Index("impressions_by_stored", "stored"),
    Index("impressions_by_session", "session_id", **_NOBODY),
    Index("impressions_unlearnt", "stored", **_UNLEARNT),
)

CHANGES = Table(
    "changes",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),  # without gaps, in the order of commits
    Column("product_id", String(256), nullable=False),
    Column("kind", String(8), nullable=False),  # upsert | patch | delete
    Column("record", Text),  # JSON: the whole product as it is after the change; null once deleted
    Column("timestamp", BigInteger, nullable=False),
    Index("changes_by_product", "product_id", "seq"),
)

PRODUCTS = Table(
    "products",
    METADATA,
    Column("product_id", String(256), primary_key=True),
    Column("seq", BigInteger, nullable=False),  # of the change that made it so
    Column("record", Text),  # as in CHANGES
)

DELTA_VECTORS = Table(
    "delta_vectors",
    METADATA,
    Column("generation", String(256), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("product_id", String(256), nullable=False),
    Column("modalities", LargeBinary),  # float16 [M, D]; null where the change left the product's vectors as they were
    Column("mask", LargeBinary),  # bool [M]
    Column("fused", LargeBinary),  # float32 [E]
    Index("delta_vectors_by_product", "generation", "product_id", "seq"),
)

GENERATIONS = Table(
    "generations",
    METADATA,
    Column("id", String(256), primary_key=True),
    Column("folder", Text, nullable=False),
    Column("base_seq", BigInteger, nullable=False),  # changes up to here are in its files
    Column("state", String(16), nullable=False),  # generations.State
    Column("created", BigInteger, nullable=False),
    Column("activated_at", BigInteger),
    Column("asked_at", BigInteger),  # when its activation was last asked for
    Column("reason", Text),  # why that did not come about
)

GENERATION_PARTS = Table(
    "generation_parts",
    METADATA,
    Column("generation", String(256), primary_key=True),
    Column("deployment", String(64), primary_key=True),
    Column("replica", String(64), primary_key=True),
    Column("ready", Boolean, nullable=False),
    Column("reason", Text),  # why it cannot hold the generation
    Column("at", BigInteger, nullable=False),  # when it last said so
)

API_KEYS = Table(
    "api_keys",
    METADATA,
    Column("id", String(12), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("scopes", Text, nullable=False),  # JSON
    Column("digest", String(64), nullable=False),  # hex SHA-256 of the key
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("rate", Float(53)),  # requests a second
)

POLICY_STATES = Table(
    "policy_states",
    METADATA,
    Column("scenario", String(32), primary_key=True),
    Column("features", String(64), primary_key=True),  # hash of the features' names: other features, another state
    Column("revision", BigInteger, nullable=False),  # how often it was written
    Column("state", Text, nullable=False),  # JSON: feedback.policies.state.LinearState
    Column("updated", BigInteger, nullable=False),
)

POLICY_SWITCHES = Table(
    "policy_switches",
    METADATA,
    Column("scenario", String(32), primary_key=True),  # "*": all
    Column("kind", String(32)),  # the policy that answers; null: the config's
    Column("frozen", Boolean),  # whether exploration is off; null: as the config says
    Column("changed", BigInteger, nullable=False),
    Column("canary", String(32)),  # the policy that answers a share first; null: none does
    Column("share", Float(53)),  # of the visitors
    Column("since", BigInteger),  # when it began
    Column("seen", Text),  # JSON: how the canary stands, as it was last looked at
)

DECISIONS = Table(
    "decisions",
    METADATA,
    Column("id", String(320), primary_key=True),  # says what was decided on, so that it is decided once
    Column("at", BigInteger, nullable=False),
    Column("subject", String(16), nullable=False),  # decisions.Subject
    Column("scenario", String(32)),  # of a policy; "*": all
    Column("candidate", String(256), nullable=False),
    Column("incumbent", String(256)),
    Column("outcome", String(32), nullable=False),  # decisions.Outcome
    Column("why", Text, nullable=False),
    Column("evidence", Text, nullable=False),  # JSON
)

ERASURES = Table(
    "erasures",
    METADATA,
    Column("digest", String(64), primary_key=True),  # SHA-256, never the id
    Column("at", BigInteger, nullable=False),  # what is from before is refused
    Column("scrubbed", Boolean, nullable=False),  # the run's files are free of the user as well
)
