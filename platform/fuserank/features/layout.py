"""How a features file is laid out, for those that write it. Without torch, which data workers need not load.

Columns: an id (`product_id` or `query_id`), `tokens` list<int32>, `image` raw uint8 H·W·3 RGB, `audio` raw float16
mels·frames, `price` float32 log-price; null where the modality is missing. Shapes travel in the file's metadata.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fuserank.features.featurizer import FeatureSettings

COLUMNS = {"text": "tokens", "image": "image", "audio": "audio", "price": "price"}
SHAPES_KEY = b"fuserank.shapes"


def feature_schema(identifier: str, settings: FeatureSettings) -> pa.Schema:
    """Arrow schema of a features file whose id column is `identifier`."""
    shapes = {
        "image": [*settings.image_size, 3],
        "audio": [settings.mels, settings.frames],
        "pad_id": settings.pad_id,
    }
    return pa.schema(
        [
            pa.field(identifier, pa.string(), nullable=False),
            ("tokens", pa.list_(pa.int32())),
            ("image", pa.binary()),
            ("audio", pa.binary()),
            ("price", pa.float32()),
        ],
        metadata={SHAPES_KEY: json.dumps(shapes).encode()},
    )


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
