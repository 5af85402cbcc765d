"""How features files are laid out, for those that write them. Without torch, which data workers need not load.

Columns: an id (`product_id` or `query_id`), `tokens` list<int32>, `image` raw uint8 H·W·3 RGB, `audio` raw float16
mels·frames (of a Hugging Face audio model extractor.sound_type), `price` float32 log-price, `attributes` raw int32 ids;
null where the modality is missing. Shapes travel in the file's metadata.
Queries are one file; products are a folder of parts, in the order of their names, with what a later run needs.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fuserank.features.featurizer import FeatureSettings

COLUMNS = {"text": "tokens", "image": "image", "audio": "audio", "price": "price", "attributes": "attributes"}
SHAPES_KEY = b"fuserank.shapes"
PROBLEM = pa.struct([("part", pa.string()), ("reason", pa.string()), ("detail", pa.string())])
KEY = 16  # bytes that stand for all a row's costly values are made of
_NOT_FEATURES = [
    pa.field("key", pa.binary(KEY)),
    pa.field("images", pa.list_(pa.string())),  # names in the media folder
    pa.field("sound", pa.string()),
    pa.field("problems", pa.list_(PROBLEM)),
    pa.field("text_signature", pa.binary()),
    pa.field("picture_signature", pa.uint64()),
]
CARRIED = ("image", "audio", "images", "sound", "problems", "text_signature", "picture_signature")
"""What a later run takes from a part when a row's key is the same: all but tokens, price and attributes, which depend
on other products."""


def feature_schema(identifier: str, settings: FeatureSettings) -> pa.Schema:
    """Arrow schema of a features file whose id column is `identifier`."""
    shapes = {
        "image": [*settings.image_size, 3],
        "audio": [settings.mels, settings.frames] if settings.extractor is None else list(settings.extractor.shape),
        "sound_lengths": settings.extractor is not None,
        "attributes": [settings.attributes.width],
        "pad_id": settings.pad_id,
    }
    return pa.schema(
        [
            pa.field(identifier, pa.string(), nullable=False),
            ("tokens", pa.list_(pa.int32())),
            ("image", pa.binary()),
            ("audio", pa.binary()),
            ("price", pa.float32()),
            ("attributes", pa.binary()),
        ],
        metadata={SHAPES_KEY: json.dumps(shapes).encode()},
    )


def part_schema(settings: FeatureSettings) -> pa.Schema:
    """Arrow schema of one part of the products' features."""
    schema = feature_schema("product_id", settings)
    return pa.schema([*schema, *_NOT_FEATURES], metadata=schema.metadata)


def feature_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A Parquet writer for features: pixels and spectrograms stored plain, so that opening only copies."""
    return pq.ParquetWriter(
        path,
        schema,
        compression={  # type: ignore[arg-type]  # pyarrow takes one codec per column
            name: "NONE" if name in ("image", "audio") else "ZSTD" for name in schema.names
        },
        use_dictionary=False,
        write_statistics=False,
    )
