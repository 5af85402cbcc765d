"""The products as answers show them, with the live changes of the catalogue. Reads the generation's products, the
change log and media folders.

Rows are counted as the retriever counts them (retrieval/delta.py): both follow the same log.
"""

import asyncio
import itertools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fuserank.errors import StoreError
from fuserank.records.live import to_row
from fuserank.store.changes import Change, Record
from fuserank.store.database import Database
from serve.documents import Documents, shown_hit, shown_picture, shown_product
from serve.follower import Follower
from serve.suggestions import Suggestions


class LiveDocuments:
    """As Documents. A row whose product is gone has no hit."""

    def __init__(self, base: Documents, database: Database, base_seq: int, media: Sequence[Path]):
        """Catches up with the log before it returns.

        Args:
            base_seq: changes up to this number are in the base.
            media: folders of content-addressed files.

        Raises:
            StoreError: the database failed.
        """
        self._base, self._media = base, tuple(media)
        self._ids, self._rows = list(base.ids), {name: row for row, name in enumerate(base.ids)}
        self._changed: dict[int, Record | None] = {}
        self._suggestions: Suggestions | None = None  # from the first `suggest` on
        self._suggesting = threading.Lock()
        self._follower = Follower(database, base_seq, self._take)
        self._follower.catch_up()
        self._follower.start()

    async def reach(self, seq: int) -> None:
        """Know the changes up to this number, if the database answers; usually they are known already."""
        if self._follower.seq < seq:
            try:
                await asyncio.to_thread(self._follower.catch_up)
            except StoreError:
                return

    def row(self, product_id: str) -> int | None:
        """The product's row, None if there is no such product now."""
        row = self._rows.get(product_id)
        return None if row is None or self._changed.get(row, self) is None else row

    def hits(self, rows: Sequence[int]) -> list[dict[str, Any] | None]:
        """What a hit shows of each row, in order; None for a product that is gone."""
        plain = [row for row in rows if row not in self._changed and row < len(self._base.ids)]
        found = dict(zip(plain, self._base.hits(plain), strict=True)) if plain else {}
        return [found[row] if row in found else self._changed_hit(row) for row in rows]

    def product(self, row: int) -> dict[str, Any]:
        """The whole product, as GET /v1/products/{id} shows it."""
        record = self._changed.get(row)
        return self._base.product(row) if record is None else shown_product(to_row(record))

    def known(self, rows: Sequence[int]) -> list[str]:
        """Ids of those rows, in order, that are products now."""
        return [self._ids[row] for row in rows if self._changed.get(row, self) is not None]

    def suggest(self, text: str, limit: int) -> list[tuple[str, int]]:
        """What somebody may be typing (Suggestions.complete). For any thread: the first time takes a while."""
        with self._suggesting:
            if self._suggestions is None:
                base = (product for row, product in enumerate(self._base.named()) if row not in self._changed)
                changed = (record for record in self._changed.values() if record is not None)
                self._suggestions = Suggestions(itertools.chain(base, changed))
            return self._suggestions.complete(text, limit)

    def description(self, product_id: str) -> str | None:
        """The product's description, None without one."""
        row = self.row(product_id)
        record = self._changed.get(row) if row is not None else None
        if row is None or record is not None:
            return (record or {}).get("description")
        return self._base.description(row)

    def picture(self, row: int) -> tuple[Path, str] | None:
        """File and content type of the main picture, None if there is none."""
        record = self._changed.get(row)
        return self._base.picture(row) if record is None else shown_picture(record.get("images"), self._media)

    def close(self) -> None:
        """Stop following."""
        self._follower.stop()

    def _changed_hit(self, row: int) -> dict[str, Any] | None:
        record = self._changed.get(row)
        return None if record is None else shown_hit(to_row(record))

    def _take(self, changes: Sequence[Change]) -> None:
        with self._suggesting:
            self._note(changes)

    def _note(self, changes: Sequence[Change]) -> None:
        for change in changes:
            row = self._rows.get(change.product_id, len(self._ids))
            if self._suggestions is not None:
                self._suggestions.replace(self._named(row), change.record)
            self._changed[row] = change.record  # first, so that whoever finds the row finds the record
            if row == len(self._ids):
                self._ids.append(change.product_id)
                self._rows[change.product_id] = row

    def _named(self, row: int) -> Mapping[str, Any] | None:
        """What suggestions know of a row, None if there is no product."""
        if row in self._changed:
            return self._changed[row]
        return self._base.named(row, 1)[0] if row < len(self._base.ids) else None
