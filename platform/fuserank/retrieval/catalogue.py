"""One generation's products and everything searched over them, in row order. Reads a generation folder, writes nothing.

`write_catalogue` lays down the same files: products.parquet, modality_vectors.npy float16 [N, M, D], mask.npy
bool [N, M], vectors.npy float32 [N, E], vectors.faiss and lexical/.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuserank.errors import EmptyCatalogueError, ModelError, StageError
from fuserank.retrieval.filters import Filters
from fuserank.retrieval.lexical import LexicalIndex
from fuserank.retrieval.traits import Traits
from fuserank.retrieval.vectors import Kind, VectorIndex


@dataclass(frozen=True)
class Catalogue:
    """Products (records.schema.PRODUCT) and their indexes; row i is the same product everywhere."""

    products: pa.Table
    vectors: np.ndarray  # float32 [N, E], fused
    modality_vectors: np.ndarray  # float16 [N, M, D]
    mask: np.ndarray  # bool [N, M]
    vector_index: VectorIndex
    lexical_index: LexicalIndex

    def __post_init__(self):
        sizes = {
            "products": self.products.num_rows,
            "vectors": len(self.vectors),
            "modality_vectors": len(self.modality_vectors),
            "mask": len(self.mask),
            "vector index": self.vector_index.size,
            "lexical index": self.lexical_index.size,
        }
        if len(set(sizes.values())) != 1:
            listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise StageError(f"the parts of this generation differ in size: {listed}.", "Run `fuserank index` again.")

    @classmethod
    def open(cls, folder: str | Path) -> "Catalogue":
        """Open the folder; arrays are memory-mapped.

        Raises:
            StageError: a part is missing or unreadable.
        """
        folder = Path(folder)
        try:
            products = pq.read_table(folder / "products.parquet")
            vectors = np.load(folder / "vectors.npy", mmap_mode="r").view(np.ndarray)
            modality_vectors = np.load(folder / "modality_vectors.npy", mmap_mode="r").view(np.ndarray)
            mask = np.load(folder / "mask.npy")
        except (OSError, ValueError, pa.ArrowInvalid) as error:
            raise StageError(f"generation {folder} is not complete: {error}", "Run `fuserank index` again.") from error
        index = VectorIndex.load(folder / "vectors.faiss")
        return cls(products, vectors, modality_vectors, mask, index, LexicalIndex.open(folder / "lexical"))

    @property
    def version(self) -> int:
        """A catalogue that does not change has one version; see delta.LiveCatalogue."""
        return 0

    def take_moved(self) -> np.ndarray:
        """No row ever changes; see delta.LiveCatalogue."""
        return np.zeros(0, np.int64)

    @property
    def size(self) -> int:
        """N, the number of products."""
        return self.products.num_rows

    @cached_property
    def ids(self) -> list[str]:
        """product_id of every row."""
        return self.products.column("product_id").to_pylist()

    @cached_property
    def rows(self) -> dict[str, int]:
        """product_id → row."""
        return {product_id: row for row, product_id in enumerate(self.ids)}

    @cached_property
    def filters(self) -> Filters:
        """Filters over the products."""
        return Filters(self.products)

    @cached_property
    def traits(self) -> Traits:
        """What the products are like."""
        return Traits(self.products)

    def documents(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """The product records of these rows, in their order; prices are Decimal, attributes a dict."""
        documents = self.products.take(pa.array(rows, pa.int64())).to_pylist()
        for document in documents:
            for name in ("attributes", "labels"):
                if name in document:
                    document[name] = dict(document[name] or [])
        return documents


def write_catalogue(
    folder: str | Path,
    products: pa.Table,
    modality_vectors: np.ndarray,
    mask: np.ndarray,
    vectors: np.ndarray,
    texts: list[str],
    kind: Kind = "auto",
    typos: bool = False,
) -> Kind:
    """Write the parts of a catalogue into a folder.

    Args:
        products: N rows.
        modality_vectors: [N, M, D]; rows whose modality is missing are never read.
        mask: bool [N, M].
        vectors: [N, E], fused.
        texts: N texts for word search.
        kind: of the vector index, see VectorIndex.build.
        typos: whether word search corrects words that no product has.

    Returns:
        The kind it became.

    Raises:
        EmptyCatalogueError: no products.
        ModelError: shapes that do not fit together, or vectors that are not finite.
    """
    size = products.num_rows
    if size == 0:
        raise EmptyCatalogueError(
            "there is no product to index.", "Check preprocess/summary.json for why rows were set aside."
        )
    for name, part in (("modality_vectors", modality_vectors), ("mask", mask), ("vectors", vectors), ("texts", texts)):
        if len(part) != size:
            raise ModelError(f"{name} has {len(part)} rows for {size} products.")
    if modality_vectors.ndim != 3 or mask.shape != modality_vectors.shape[:2]:
        raise ModelError(
            f"modality_vectors {modality_vectors.shape} and mask {mask.shape} are not [N, M, D] and [N, M]."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    index = VectorIndex.build(vectors, kind)
    index.save(folder / "vectors.faiss")
    LexicalIndex.build(texts, folder / "lexical", typos)
    pq.write_table(products, folder / "products.parquet")
    np.save(folder / "modality_vectors.npy", np.asarray(modality_vectors, np.float16))
    np.save(folder / "mask.npy", np.asarray(mask, bool))
    np.save(folder / "vectors.npy", np.asarray(vectors, np.float32))
    return index.kind
