"""Gives every change of the log its vectors in one generation, by the deployed encoders, once for all replicas.

Reads the change log, the generation's products and vectors, and media; writes vectors of changes (store/vectors.py).
Only what a modality is made of counts: a change of stock or rating encodes nothing, one of the title the text alone.
What stays is taken from the vectors as they were, in float16 as generations hold them; the fused vector is made of
those in a generation and here alike, so that both come out the same.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from fuserank.features.featurizer import Featurizer
from fuserank.records.live import Record, from_row, to_row
from fuserank.records.media import media_path
from fuserank.retrieval.delta import Vectors
from fuserank.store.changes import Change, StoredVectors
from fuserank.store.database import Database

log = logging.getLogger("fuserank.serve")
Encode = Callable[[str, str, list[Any]], Awaitable[list[np.ndarray | None]]]
SMALL = ("price", "attributes")  # encoders that cost nothing: they run here, no query needs a deployment of them
BATCH = 64  # changes encoded at a time
RETRY_SECONDS = 0.5
IDLE_SECONDS = 0.2  # another process may have written the change


class BaseProducts:
    """The products and vectors of a generation's folder, by product id."""

    def __init__(self, folder: Path):
        self._products = pq.read_table(folder / "products.parquet", memory_map=True)
        self._rows = {name: row for row, name in enumerate(self._products["product_id"].to_pylist())}
        self._vectors = np.load(folder / "modality_vectors.npy", mmap_mode="r")
        self._mask = np.load(folder / "mask.npy")

    def record(self, product_id: str) -> Record | None:
        """The product as it was imported."""
        row = self._rows.get(product_id)
        return None if row is None else from_row(self._products.slice(row, 1).to_pylist()[0])

    def vectors(self, product_id: str) -> tuple[np.ndarray, np.ndarray] | None:
        """float16 [M, D] and bool [M]."""
        row = self._rows.get(product_id)
        return None if row is None else (np.array(self._vectors[row]), self._mask[row].copy())


class Embedder:
    """`run` encodes changes as they come; `wake` says that there are some."""

    def __init__(self, folder: Path, base_seq: int, media: Sequence[Path], database: Database, encode: Encode):
        """
        Args:
            folder: the generation's.
            base_seq: changes up to this number are in its files.
            media: folders to look for media in.
            encode: generation, modality and values (texts, encoded pictures and sounds) → float32 [D] each, None for an
                unreadable one. Raises if the encoder does not answer.

        Raises:
            ModelError: the model cannot be loaded.
        """
        from fuserank.models.checkpoint import load_model

        self.base = BaseProducts(folder)
        self.featurizer = Featurizer.load(folder / "featurizer")
        self.encoded: Counter[str] = Counter()  # modality → values encoded so far
        self._generation = folder.name
        self._model = load_model(folder / "model", SMALL)
        self._media, self._database, self._encode = tuple(media), database, encode
        self._seq = base_seq  # every change up to here has its vectors
        self._wake: asyncio.Event | None = None  # of the loop that runs

    def wake(self) -> None:
        """There are new changes."""
        if self._wake is not None:
            self._wake.set()

    def ready(self) -> bool:
        """Whether every change has its vectors. Raises StoreError."""
        return self._database.unencoded_change(self._generation, self._seq) is None

    async def run(self) -> None:
        """Encode for ever; an encoder or a database that does not answer is asked again."""
        self._wake = asyncio.Event()
        while True:
            self._wake.clear()
            try:
                while await self.step():
                    continue
            except Exception:
                log.warning("changes could not be encoded; trying again", exc_info=True)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            try:
                async with asyncio.timeout(IDLE_SECONDS):  # wait_for can swallow the end when a change comes with it
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def step(self) -> int:
        """Encode the next changes; how many there were."""
        changes, former = await asyncio.to_thread(self._next)
        if not changes:
            return 0
        before = [await asyncio.to_thread(self._inputs, former[change.seq]) for change in changes]
        after = [await asyncio.to_thread(self._inputs, change.record) for change in changes]
        fresh: dict[str, list[int]] = {}
        for i in range(len(changes)):
            for modality in self._model.modalities:
                if after[i].get(modality) is not None and after[i][modality] != before[i].get(modality):
                    fresh.setdefault(modality, []).append(i)
        made = await asyncio.gather(*(self._made(m, [after[i][m] for i in places]) for m, places in fresh.items()))
        vectors = {
            m: dict(zip(places, found, strict=True)) for (m, places), found in zip(fresh.items(), made, strict=True)
        }
        await asyncio.to_thread(self._store, changes, before, after, vectors)
        self._seq = changes[-1].seq
        return len(changes)

    async def embed(self, inputs: Sequence[dict[str, Any]]) -> list[Vectors]:
        """What the model makes of products that are in no catalogue.

        Args:
            inputs: modality → what it is made of, as `inputs` says, but media themselves instead of their names.

        Raises:
            FuserankError: an encoder does not answer.
        """
        modalities = self._model.modalities
        places = {m: [i for i, one in enumerate(inputs) if one.get(m) is not None] for m in modalities}
        made = await asyncio.gather(*(self._made(m, [inputs[i][m] for i in places[m]]) for m in modalities))
        matrix = np.zeros((len(inputs), len(modalities), self._model.width), np.float16)
        mask = np.zeros(matrix.shape[:2], bool)
        for m, (modality, found) in enumerate(zip(modalities, made, strict=True)):
            for i, vector in zip(places[modality], found, strict=True):
                if vector is not None:
                    matrix[i, m], mask[i, m] = vector, True
        fused = await asyncio.to_thread(self._fused, matrix, mask)
        return [Vectors(*one) for one in zip(fused, matrix, mask, strict=True)]

    def _next(self) -> tuple[list[Change], dict[int, Record | None]]:
        """Changes without vectors, no product twice (the second builds on the first), and the products before them."""
        first = self._database.unencoded_change(self._generation, self._seq)
        if first is None:
            return [], {}
        changes: list[Change] = []
        for change in self._database.read_changes(first - 1, self._generation, BATCH):
            if change.product_id in {one.product_id for one in changes}:
                break
            changes.append(change)
        changes = [change for change in changes if change.kind != "delete" and not change.encoded]
        earlier = self._database.records_before(changes)
        former = {
            change.seq: record if touched else self.base.record(change.product_id)
            for change in changes
            for touched, record in [earlier[change.seq]]
        }
        return changes, former

    def _inputs(self, record: Record | None) -> dict[str, Any]:
        return {} if record is None else self.inputs(to_row(record))

    def inputs(self, row: dict[str, Any]) -> dict[str, Any]:
        """What each modality of a PRODUCT row is made of: a text, a medium's name, a log-price, ids. None where it is
        missing."""
        attributes = self.featurizer.attributes(row)
        return {
            "text": self.featurizer.product_text(row) or None,
            "image": row["images"][0] if row["images"] else None,
            "audio": row["audio"],
            "price": self.featurizer.price(row["price"]),
            "attributes": None if attributes is None else tuple(attributes.tolist()),
        }

    async def _made(self, modality: str, values: list[Any]) -> list[np.ndarray | None]:
        self.encoded[modality] += len(values)
        if modality in SMALL and values:
            return await asyncio.to_thread(self._small, modality, values)
        if modality in ("image", "audio"):
            values = await asyncio.to_thread(
                lambda: [self._read(one) if isinstance(one, str) else one for one in values]
            )
        there = [i for i, value in enumerate(values) if value is not None]
        found = await self._encode(self._generation, modality, [values[i] for i in there]) if there else []
        vectors = dict(zip(there, found, strict=True))
        return [vectors.get(i) for i in range(len(values))]

    def _read(self, name: str) -> bytes | None:
        for folder in self._media:
            path = media_path(folder, name)
            if path.is_file():
                return path.read_bytes()
        log.error("medium %s is not in the media folders; its product goes without", name)
        return None

    def _small(self, modality: str, values: list[Any]) -> list[np.ndarray | None]:
        import torch

        from fuserank.features.batch import collate
        from fuserank.training.encode import autocast

        with torch.inference_mode(), autocast(torch.device("cpu")):
            return list(self._model.encode(modality, collate(modality, values)).float().numpy())

    def _fused(self, matrix: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """float16 [N, M, D] and bool [N, M] → float32 [N, E]."""
        import torch

        with torch.inference_mode():
            there = torch.from_numpy(np.where(mask[..., None], matrix, 0).astype(np.float32))
            return self._model.product_vectors(there, torch.from_numpy(mask)).float().numpy()

    def _store(self, changes: list[Change], before: list[dict], after: list[dict], vectors: dict[str, dict]) -> None:
        modalities, width = self._model.modalities, self._model.width
        moved = [i for i in range(len(changes)) if not before[i] or before[i] != after[i]]
        known = self._database.latest_vectors(
            self._generation, [changes[i].product_id for i in moved if before[i]], changes[0].seq
        )
        matrix = np.zeros((len(moved), len(modalities), width), np.float16)
        mask = np.zeros((len(moved), len(modalities)), bool)
        for place, i in enumerate(moved):
            product_id = changes[i].product_id
            if before[i]:
                if (stored := known.get(product_id)) is not None:
                    matrix[place] = np.frombuffer(stored.modalities, np.float16).reshape(len(modalities), width)
                    mask[place] = np.frombuffer(stored.mask, bool)
                elif (imported := self.base.vectors(product_id)) is not None:
                    matrix[place], mask[place] = imported
            for m, modality in enumerate(modalities):
                if before[i].get(modality) != after[i].get(modality):
                    vector = vectors.get(modality, {}).get(i)
                    mask[place, m] = vector is not None
                    matrix[place, m] = 0 if vector is None else vector
        rows: dict[int, tuple[str, StoredVectors | None]] = {c.seq: (c.product_id, None) for c in changes}
        if moved:
            fused = self._fused(matrix, mask)
            for place, i in enumerate(moved):
                stored = StoredVectors(matrix[place].tobytes(), mask[place].tobytes(), fused[place].tobytes())
                rows[changes[i].seq] = (changes[i].product_id, stored)
        self._database.add_vectors(self._generation, rows)
