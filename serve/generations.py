"""Which generations there are, which one answers, and how another takes its place. Reads the index folder; reads and
writes the database's generations.

The files say which there are, the database which one answers. `index/current` follows the database, so that a service
that is started anew answers as the last one did – unless `fuserank index` has made a newer one current since.
"""

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuserank.errors import InputError, StageError
from fuserank.retrieval.generation import activate, current_folder, generation_ids, read_manifest
from fuserank.store.database import Database
from fuserank.store.decisions import Decision
from fuserank.store.generations import Generation
from serve.held import follow

log = logging.getLogger("fuserank.serve")
ALIVE_SECONDS = 5.0  # a replica that has said nothing for so long is gone
HEARD_SECONDS = 1.5  # by then every replica has noticed what was asked for
WARM_SECONDS = 3600.0  # after which one that is still not ready is given up
MEDIA = ("text", "image", "audio")  # what has an encoder deployment


def adopt(database: Database, index: Path, newest: bool) -> Path:
    """Tell the database what is on disk; the folder of the generation that answers.

    Args:
        newest: answer from `index/current` even where the database names another.

    Raises:
        MissingStageError: no index yet. StoreError: the database failed.
    """
    _register(database, index)
    rows = {row.id: row for row in database.generations()}
    active = next((row for row in rows.values() if row.state == "active"), None)
    current = current_folder(index).absolute()
    if active is not None and not newest and active.id in generation_ids(index):
        return Path(active.folder)
    if active is None or active.id != current.name:
        database.activate_generation(current.name)
    for row in rows.values():
        if row.state == "warming" and row.id != current.name:
            database.refuse_generation(row.id, "the service was started anew before it was ready")
    return current


def listing(database: Database, index: Path) -> list[dict[str, Any]]:
    """What GET /v1/generations shows, oldest first."""
    rows = {row.id: row for row in database.generations()}
    found = []
    for identity in generation_ids(index):
        try:
            manifest = read_manifest(index / "generations" / identity)
        except StageError:  # of another version, or pruned at this moment
            continue
        row = rows.get(identity)
        state = row.state if row else "ready"
        found.append(
            {
                "id": identity,
                "created": manifest["created"],
                "model_version": manifest["model"],
                "products": manifest["products"],
                "active": state == "active",
                "state": state,
                "reason": row.reason if row else None,
            }
        )
    return found


def ask_for(database: Database, index: Path, identity: str) -> None:
    """Have the service make a generation ready and then answer from it; it does so by itself from here on.

    Raises:
        InputError: there is none of this id on disk. StoreError: the database failed.
    """
    if identity not in generation_ids(index):
        raise InputError(f"there is no generation {identity[:80]!r}.", "GET /v1/generations lists them.")
    _register(database, index)
    if identity not in [row.id for row in database.generations() if row.state == "active"]:
        database.warm_generation(identity)


def roll_back(database: Database, index: Path, decision: Decision) -> bool:
    """Do what a decision against the generation that answers says, once; False: not now, or it is done.

    Raises:
        StoreError: the database failed.
    """
    if decision.incumbent not in generation_ids(index):
        log.warning("generation %s cannot be rolled back: %s is gone", decision.candidate, decision.incumbent)
        return False
    _register(database, index)
    return database.roll_back_generation(decision)


def previous(database: Database, index: Path) -> str:
    """The generation that answered before the active one.

    Raises:
        InputError: there was none, or it is no longer on disk.
    """
    there = generation_ids(index)
    past = [row for row in database.generations() if row.state == "retired" and row.activated_at and row.id in there]
    if not past:
        raise InputError("no earlier generation is left on disk.", "Raise index.keep to keep more of them.")
    return max(past, key=lambda row: row.activated_at or 0).id


def _register(database: Database, index: Path) -> None:
    there = generation_ids(index)
    for identity in there:
        folder = (index / "generations" / identity).absolute()
        database.register_generation(identity, str(folder), read_manifest(folder)["base_seq"])
    database.forget_generations(there)


class Conductor:
    """Activates a generation that was asked for once every replica holds it, in a thread of its own. One is enough."""

    def __init__(self, database: Database, index: Path, deployments: Sequence[str], encoders: Sequence[str]):
        """
        Args:
            deployments: whose replicas must hold it. encoders: the modalities that have an encoder deployment.
        """
        self._database, self._index, self._deployments = database, index, tuple(deployments)
        self._encoders = frozenset(encoders)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=follow, args=(self._look, self._stopped), name="conductor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; a generation that is asked for waits for the next conductor."""
        self._stopped.set()
        self._thread.join()

    def _look(self) -> bool:
        """Do what is asked for; whether a generation is being made ready."""
        asked = next((row for row in self._database.generations() if row.state == "warming"), None)
        if asked is not None:
            try:
                self._conduct(asked)
            except StageError as error:  # its folder is gone or damaged
                self._refuse(asked, error.message)
        return asked is not None

    def _conduct(self, asked: Generation) -> None:
        modalities = set(read_manifest(asked.folder)["modalities"]) & set(MEDIA)
        if extra := sorted(modalities - self._encoders):
            self._refuse(asked, f"this service runs no {', '.join(extra)} encoder: start it anew with this generation")
            return
        now = time.time_ns() // 1_000_000
        waited = (now - (asked.asked_at or now)) / 1000
        alive = [part for part in self._database.generation_parts(asked.id) if now - part.at < 1000 * ALIVE_SECONDS]
        for part in alive:
            if part.reason is not None and part.at >= (asked.asked_at or 0):
                self._refuse(asked, part.reason)
                return
        late = [name for name in self._deployments if name not in {part.deployment for part in alive}]
        late += [part.deployment for part in alive if not part.ready]
        if not late and waited >= HEARD_SECONDS:
            activate(self._index, asked.id)
            self._database.activate_generation(asked.id)
            log.info("generation %s answers after %.1f s", asked.id, waited)
        elif waited > WARM_SECONDS:
            self._refuse(asked, f"not ready after {WARM_SECONDS:.0f} s: {', '.join(sorted(set(late)))}")

    def _refuse(self, asked: Generation, reason: str) -> None:
        log.warning("generation %s is not activated: %s", asked.id, reason)
        self._database.refuse_generation(asked.id, reason)
