"""Arrow schemas of the records a shop brings and the platform writes (the contracts every stage keeps).

Products, queries, judgments and events are written by `preprocess` with exactly these columns; impressions by `serve`.
Every product field but the id may be missing (null). Media are content-addressed files, never blobs in a table.
"""

import pyarrow as pa

MODALITIES = ("text", "image", "audio", "price", "attributes")
"""What a product can be seen through. Order is the order of the modality axis M everywhere."""

EVENT_TYPES = ("impression", "view", "click", "add_to_cart", "purchase", "like", "dislike", "remove")

PRODUCT = pa.schema(
    [
        pa.field("product_id", pa.string(), nullable=False),
        ("parent_id", pa.string()),  # variants of one article share it
        ("variant_ids", pa.list_(pa.string())),  # of a product that stands for its variants, sorted
        ("title", pa.string()),
        ("description", pa.string()),
        ("images", pa.list_(pa.string())),  # content hashes, first is the main picture
        ("audio", pa.string()),  # content hash
        ("price", pa.decimal128(18, 2)),  # the lowest where it is a range
        ("price_max", pa.decimal128(18, 2)),  # the highest of a range or of the variants, else null
        ("currency", pa.string()),  # ISO 4217
        ("brand", pa.string()),
        ("category", pa.list_(pa.string())),  # from the root down
        (
            "attributes",
            pa.map_(pa.string(), pa.string()),
        ),  # shown, filtered on; text of a typed value; keys may repeat
        ("labels", pa.map_(pa.string(), pa.string())),  # judging only: no feature ever reads them
        ("in_stock", pa.bool_()),
        ("rating", pa.float32()),
        ("review_count", pa.int32()),
        ("updated_at", pa.timestamp("ms")),
        ("split", pa.string()),  # training | validation | evaluation; null where the split is not by product
    ]
)

QUERY = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        ("text", pa.string()),
        ("image", pa.string()),  # content hash
        ("audio", pa.string()),  # content hash
        ("user_id", pa.string()),
        ("split", pa.string()),
        ("group", pa.string()),  # a slice evaluation reports apart, e.g. "seen" and "unseen"
    ]
)

JUDGMENT = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("grade", pa.float32(), nullable=False),  # >= 0; unlisted pairs count as 0
    ]
)

LINK = pa.schema(
    [
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # the shop's word: related, upsell, crosssell …
        pa.field("linked_id", pa.string(), nullable=False),
    ]
)

REVIEW = pa.schema(
    [
        pa.field("review_id", pa.string(), nullable=False),  # file and row
        pa.field("product_id", pa.string(), nullable=False),
        ("user_id", pa.string()),
        ("rating", pa.float64()),  # stars, of five
        ("title", pa.string()),
        ("text", pa.string()),
        ("timestamp", pa.timestamp("ms")),
    ]
)

EVENT = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),  # one of EVENT_TYPES
        ("user_id", pa.string()),
        ("session_id", pa.string()),
        pa.field("product_id", pa.string(), nullable=False),
        ("request_id", pa.string()),
        ("query_id", pa.string()),  # of the search whose answer it is about
        ("position", pa.int32()),  # 0-based place in the answer
        ("value", pa.float64()),  # e.g. the amount of a purchase
        pa.field("timestamp", pa.timestamp("ms"), nullable=False),
    ]
)

SPLIT_EVENT = pa.schema([*EVENT, ("split", pa.string())])
"""An event as `preprocess` writes it; no split where each user's last events are held out."""

IMPRESSION = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # search | recommend | similar
        ("scenario", pa.string()),
        ("query", pa.string()),
        ("user_id", pa.string()),
        ("session_id", pa.string()),
        ("candidate_ids", pa.list_(pa.string())),
        ("product_ids", pa.list_(pa.string())),  # shown, in order
        ("propensities", pa.list_(pa.float64())),  # per position
        ("slate_propensity", pa.float64()),
        ("features", pa.string()),  # JSON: what the policy saw
        ("policy", pa.string()),  # policy@version
        ("generation", pa.string()),
        pa.field("timestamp", pa.timestamp("ms"), nullable=False),
    ]
)

DUPLICATE = pa.schema(
    [
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),  # smallest id of the products that seem to be one
        pa.field("reason", pa.string(), nullable=False),  # same | similar, text | picture
    ]
)

FLAG = pa.schema(
    [
        pa.field("record", pa.string(), nullable=False),  # product | user
        pa.field("id", pa.string(), nullable=False),
        pa.field("flag", pa.string(), nullable=False),  # short and countable
        ("detail", pa.string()),
    ]
)

QUARANTINE = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),  # file, relative to records.root
        pa.field("position", pa.int64(), nullable=False),  # 0-based row in that file
        ("product_id", pa.string()),
        pa.field("part", pa.string(), nullable=False),  # row | image | audio | price | …: what was set aside
        pa.field("reason", pa.string(), nullable=False),  # short and countable
        ("detail", pa.string()),
    ]
)
