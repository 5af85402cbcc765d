"""The retriever's catalogue while the shop changes it: applies the change log, keeps popularity true, compacts.

Reads the store; writes a scratch folder below the system's temporary folder. Everything that touches the catalogue runs
in the retriever's compute thread, so that no search ever sees half a change.
"""

import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from fuserank.retrieval.catalogue import Catalogue
from fuserank.retrieval.delta import Applied, LiveCatalogue, Vectors
from fuserank.store.changes import Change
from fuserank.store.database import Database
from serve.follower import Follower

log = logging.getLogger("fuserank.serve")
TURN_SECONDS = 0.0005  # how long a compaction keeps Python from a search that wants it; a search wants it many times


class Live:
    """`catalogue` is what to search, `popularity` [R] is what to recommend to strangers; both change by themselves."""

    def __init__(
        self,
        base: Catalogue,
        generation: str,
        base_seq: int,
        database: Database | None,
        product_text: Callable[[Mapping[str, Any]], str],
        thread: Executor,
        compact_after: int,
    ):
        """Catches up with the log before it returns.

        Args:
            base_seq: changes up to this number are in the base.
            database: None for a catalogue that nobody changes.
            thread: the one thread that searches.
            compact_after: changes beside the base before it is made anew.

        Raises:
            StoreError: the database failed.
        """
        from serve.popularity import reviews

        self._scratch = scratch_folder()
        self.catalogue = LiveCatalogue(base, base_seq, product_text, self._scratch)
        self.compactions = 0  # finished ones
        self._ratings, self._counts = reviews(base.products)
        self._count_popularity()
        self._thread, self._compact_after, self._compacting = thread, compact_after, False
        self._shapes = (base.modality_vectors.shape[1:], base.mask.shape[1])
        self.follower: Follower | None = None
        if database is not None:
            self.follower = Follower(database, base_seq, self._take, generation, name="retriever")
            self.follower.catch_up()
            self.follower.start()

    def close(self) -> None:
        """Stop following and remove the scratch folder."""
        if self.follower is not None:
            self.follower.stop()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _take(self, changes: Sequence[Change]) -> None:
        applied = [Applied(change.seq, change.product_id, change.record, self._vectors(change)) for change in changes]
        self._thread.submit(self._apply, applied).result()

    def _vectors(self, change: Change) -> Vectors | None:
        if change.vectors is None:
            return None
        modalities, mask = self._shapes
        return Vectors(
            np.frombuffer(change.vectors.fused, np.float32),
            np.frombuffer(change.vectors.modalities, np.float16).reshape(modalities),
            np.frombuffer(change.vectors.mask, bool, mask),
        )

    def _apply(self, changes: list[Applied]) -> None:
        self.catalogue.apply(changes)
        more = np.full(self.catalogue.size - len(self._ratings), np.nan, np.float32)
        self._ratings, self._counts = np.concatenate([self._ratings, more]), np.concatenate([self._counts, more])
        moved = len(more) > 0
        for change in changes:
            row, record = self.catalogue.rows[change.product_id], change.record or {}
            for column, name in ((self._ratings, "rating"), (self._counts, "review_count")):
                value = np.float32(np.nan if record.get(name) is None else record[name])
                moved = moved or not np.array_equal(column[row], value, equal_nan=True)
                column[row] = value
        if moved:
            self._count_popularity()
        if self.catalogue.delta >= self._compact_after and not self._compacting:
            self._compacting = True
            job = self.catalogue.compaction()
            threading.Thread(target=self._compact, args=(job,), name="compaction", daemon=True).start()

    def _count_popularity(self) -> None:
        from serve.popularity import popularity

        self.popularity = popularity(self._ratings, self._counts)

    def _compact(self, job: Callable[[], Callable[[], None]]) -> None:
        before = sys.getswitchinterval()
        sys.setswitchinterval(TURN_SECONDS)
        try:
            install = job()
            self._thread.submit(install).result()
            self.compactions += 1
            self._compacting = False
        except Exception:  # searches go on with what there is; trying again would fail again
            log.exception("the changes could not be made into a new base")
        finally:
            sys.setswitchinterval(before)


def scratch_folder() -> Path:
    """An empty folder of our own; those of processes that were killed are removed."""
    home = Path(tempfile.gettempdir()) / f"fuserank-{os.getuid()}" / "retriever"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for other in home.iterdir():
        pid = other.name.partition("-")[0]
        if pid.isdigit() and not _runs(int(pid)):
            shutil.rmtree(other, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=home))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
