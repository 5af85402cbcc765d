"""Generations in one process: opened beside the one that answers, activated once every replica holds them, refused with
a reason, rolled back; requests are answered by the generation they name."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fuserank import config
from fuserank.errors import InputError, StageError
from fuserank.retrieval.generation import CURRENT, FORMAT, MANIFEST, current_folder
from fuserank.store.database import Database
from fuserank.store.keys import make as make_key
from serve import held as held_module
from serve.envelope import UNAVAILABLE, Envelope
from serve.gateway import Gateway
from serve.generations import Conductor, adopt, ask_for, listing, previous
from serve.held import Held
from serve.keyring import Keyring
from serve.routes import create_app
from serve.worker import Worker

NAMES = ("g1", "g2", "g3")


def wait_for(what: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def make(index: Path, name: str, modalities: tuple[str, ...] = ("text",)) -> Path:
    """A generation as far as these tests look at it."""
    from fuserank.artifacts import write_json

    folder = index / "generations" / name
    folder.mkdir(parents=True)
    values = {"format": FORMAT, "id": name, "created": "2026-01-01T00:00:00+00:00", "model": f"model of {name}"}
    write_json(folder / MANIFEST, values | {"products": 3, "modalities": list(modalities), "base_seq": 0})
    return folder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    for name in NAMES:
        make(tmp_path / "index", name)
    (tmp_path / "index" / CURRENT).write_text("g1\n")
    return tmp_path / "index"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(f"sqlite:///{tmp_path}/store.db") as opened:
        yield opened


def state(database: Database, name: str) -> str:
    return next(row.state for row in database.generations() if row.id == name)


class Opened:
    """What a replica holds of a generation here: its folder's name."""

    def __init__(self, bad: tuple[str, ...] = ()):
        self.bad, self.closed, self.is_ready = bad, [], True

    def open(self, folder: Path) -> str:
        if folder.name in self.bad:
            raise StageError(f"{folder.name} is broken.")
        return folder.name

    def held(self, deployment: str, first: Path, database: Database | None) -> Held[str]:
        return Held(deployment, first, self.open, database, close=self.closed.append, ready=lambda part: self.is_ready)


@pytest.fixture
def replicas(index: Path, database: Database) -> Iterator[dict[str, Any]]:
    """Two retrievers, a gateway and a conductor."""
    adopt(database, index, newest=False)
    opened = {name: Opened() for name in ("retriever", "other retriever", "gateway")}
    first = index / "generations" / "g1"
    held = {name: one.held(name.split()[-1], first, database) for name, one in opened.items()}
    conductor = Conductor(database, index, ("retriever", "gateway"), ("text",))
    yield {"opened": opened, "held": held}
    conductor.stop()
    for one in held.values():
        one.stop()


def test_a_generation_answers_once_every_replica_holds_it(index: Path, database: Database, replicas: dict[str, Any]):
    held, opened = replicas["held"], replicas["opened"]
    opened["other retriever"].is_ready = False
    ask_for(database, index, "g2")
    wait_for(lambda: all(one.get("g2") == "g2" for one in held.values()))
    time.sleep(2.0)
    assert [one.active for one in held.values()] == ["g1"] * 3  # one replica has not caught up
    assert current_folder(index).name == "g1"
    opened["other retriever"].is_ready = True
    wait_for(lambda: all(one.active == "g2" for one in held.values()))
    assert [one.get("g1") for one in held.values()] == ["g1"] * 3  # requests under way are answered from it
    assert current_folder(index).name == "g2"
    assert {row["id"]: row["state"] for row in listing(database, index)} == {
        "g1": "retired", "g2": "active", "g3": "ready",
    }  # fmt: skip
    assert previous(database, index) == "g1"
    ask_for(database, index, "g1")
    wait_for(lambda: all(one.active == "g1" for one in held.values()))
    assert previous(database, index) == "g2"


def test_what_is_not_needed_goes_when_nobody_can_ask_for_it(
    index: Path, database: Database, replicas: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(held_module, "DRAIN_SECONDS", 0.5)
    held, opened = replicas["held"], replicas["opened"]
    for name in ("g2", "g3"):
        ask_for(database, index, name)
        wait_for(lambda name=name: all(one.active == name for one in held.values()))
    wait_for(lambda: all(one.closed == ["g1", "g2"] for one in opened.values()))
    assert [one.all() for one in held.values()] == [["g3"]] * 3


def test_one_that_cannot_be_opened_is_refused_with_the_reason(
    index: Path, database: Database, replicas: dict[str, Any]
):
    replicas["opened"]["other retriever"].bad = ("g2",)
    ask_for(database, index, "g2")
    wait_for(lambda: state(database, "g2") == "ready")
    assert {row["id"]: row["reason"] for row in listing(database, index)} == {
        "g1": None, "g2": "g2 is broken.", "g3": None,
    }  # fmt: skip
    assert [one.active for one in replicas["held"].values()] == ["g1"] * 3
    replicas["opened"]["other retriever"].bad = ()
    ask_for(database, index, "g2")  # mended: it is tried again
    wait_for(lambda: all(one.active == "g2" for one in replicas["held"].values()))


def test_one_whose_folder_is_damaged_is_refused(index: Path, database: Database, replicas: dict[str, Any]):
    (index / "generations" / "g2" / MANIFEST).write_text("{")
    database.warm_generation("g2")
    wait_for(lambda: state(database, "g2") == "ready")
    (reason,) = [row.reason for row in database.generations() if row.id == "g2"]
    assert reason is not None
    assert "is not a generation" in reason
    assert [one.active for one in replicas["held"].values()] == ["g1"] * 3


def test_one_with_a_modality_that_has_no_encoder_is_refused(index: Path, database: Database, replicas: dict[str, Any]):
    make(index, "g4", ("text", "audio", "price"))
    ask_for(database, index, "g4")
    wait_for(lambda: state(database, "g4") == "ready")
    assert "no audio encoder" in listing(database, index)[3]["reason"]
    with pytest.raises(InputError, match="no generation 'g5'"):
        ask_for(database, index, "g5")


def test_the_last_one_asked_for_wins(index: Path, database: Database):
    adopt(database, index, newest=False)
    ask_for(database, index, "g2")
    ask_for(database, index, "g3")
    assert [state(database, name) for name in NAMES] == ["active", "ready", "warming"]
    assert "g3 was asked for after it" in listing(database, index)[1]["reason"]
    ask_for(database, index, "g1")  # it answers already
    assert state(database, "g1") == "active"


def test_a_replica_that_starts_opens_what_answers_and_what_is_asked_for(index: Path, database: Database):
    adopt(database, index, newest=False)
    database.activate_generation("g2")
    ask_for(database, index, "g3")
    opened = Opened()
    held = opened.held("retriever", index / "generations" / "g1", database)
    assert (held.active, sorted(held.all())) == ("g2", ["g2", "g3"])
    held.stop()
    assert opened.closed == ["g2", "g3"]


def test_a_service_starts_with_what_answered_last_or_with_the_newest(index: Path, database: Database):
    assert adopt(database, index, newest=False).name == "g1"
    database.activate_generation("g2")
    assert adopt(database, index, newest=False).name == "g2"  # index/current still says g1: a redeployment
    assert adopt(database, index, newest=True).name == "g1"
    assert [state(database, name) for name in NAMES] == ["active", "retired", "ready"]
    with pytest.raises(InputError, match="no earlier generation"):
        previous(database, index / "elsewhere")


def test_requests_are_answered_by_the_generation_they_name(index: Path):
    class Naming(Worker[str]):
        def open(self, folder: Path) -> str:
            return folder.name

        def work(self, part: str, payloads: list[int]) -> list[str]:
            return [f"{part}:{payload}" for payload in payloads]

    worker = Naming("naming", index / "generations" / "g1")
    worker.held._parts["g2"] = "g2"
    names = ["g2", "g1", "g9", "g2"]
    envelopes = [Envelope(f"r{i}", name, time.time() + 9, i) for i, name in enumerate(names)]
    results = asyncio.run(worker(envelopes))
    assert [result.value for result in results] == ["g2:0", "g1:1", None, "g2:3"]
    assert results[2].error == UNAVAILABLE
    assert [result.request_id for result in results] == ["r0", "r1", "r2", "r3"]


def test_activation_over_http(gateway: Gateway, index: Path, database: Database):
    adopt(database, index, newest=False)
    secret, stored = make_key("me", ["admin"])
    database.add_key(stored)
    keyring = Keyring(database, False, 3600)
    app = create_app(gateway, 1000, "test", config.Guard(administration=True), keyring, index)
    with TestClient(app) as client:
        asked = [
            client.post(f"/v1/generations/{name}/activate", headers={"X-API-Key": secret} if key else {})
            for name, key in (("g2", False), ("g2", True), ("g9", True), ("%2e%2e", True))
        ]
    assert [answer.status_code for answer in asked] == [401, 202, 404, 404]
    assert (asked[1].json()["state"], asked[1].json()["active"]) == ("warming", False)
    assert asked[2].json()["error"]["code"] == "unknown_generation"
    with TestClient(create_app(gateway, 1000, "test", config.Guard(), Keyring(database, False, 3600), index)) as client:
        assert client.post("/v1/generations/g2/activate", headers={"X-API-Key": secret}).status_code == 404
