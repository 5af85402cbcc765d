"""The log: JSON lines that carry a request's id through every deployment, and never a secret."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fuserank import config
from fuserank.store.database import Database
from fuserank.store.keys import make
from serve import logs
from serve.gateway import Gateway
from serve.keyring import Keyring
from serve.logs import JsonLines
from serve.routes import create_app


@pytest.fixture
def lines() -> Iterator[Any]:
    """What this process logs as JSON, parsed when called."""
    out = io.StringIO()
    handler, logger = logging.StreamHandler(out), logging.getLogger("fuserank")
    handler.setFormatter(JsonLines("test"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel("DEBUG")
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_one_id_leads_through_every_deployment(client: TestClient, lines: Any):
    answer = client.post("/v1/search", json={"text": "secret wish"})
    identity = answer.json()["request_id"]
    assert answer.headers["x-request-id"] == identity
    mine = [line for line in lines() if line.get("request_id") == identity or identity in line.get("request_ids", ())]
    assert [line["message"] for line in mine] == ["batch of 1"] * 3 + ["POST /v1/search 200"]
    assert all(line["ms"] >= 0 and line["level"] == "INFO" and line["time"].endswith("+00:00") for line in mine)
    assert "secret wish" not in json.dumps(lines())


def test_a_failed_request_is_named_where_it_failed(
    client: TestClient, deployments: dict[str, Any], lines: Any, monkeypatch: pytest.MonkeyPatch
):
    def broken(part: Any, payloads: list[Any]) -> Any:
        raise ZeroDivisionError("deep inside")

    monkeypatch.setattr(deployments["reranker"], "work", broken)
    identity = client.post("/v1/search", json={"text": "red"}).json()["error"]["request_id"]
    (failure,) = [line for line in lines() if "error" in line]
    assert failure["request_id"] == identity
    assert "deep inside" in failure["error"]
    assert {"failed": {identity: "internal"}}.items() <= next(line for line in lines() if "failed" in line).items()
    assert lines()[-1] | {"code": "internal", "request_id": identity} == lines()[-1]


def test_no_key_ever_reaches_the_log(gateway: Gateway, lines: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    key, stored = make("web", ["search"])
    secret = key.split("_")[2]
    with Database(f"sqlite:///{tmp_path}/keys.db") as database:
        database.add_key(stored)
        keyring = Keyring(database, True, 3600)
        app = create_app(gateway, 10_000, "test", config.Guard(administration=True), keyring)
        with TestClient(app, raise_server_exceptions=False) as client:
            good = {"Authorization": f"Bearer {key}"}
            client.post("/v1/search", json={"text": key, "user_id": key, "filter": {key: key}}, headers=good)
            client.post(f"/v1/search/{key}?key={key}", content=key, headers=good | {"Content-Type": key})
            client.get(f"/v1/products/{key}", headers={"X-API-Key": key[:-1] + "g"})
            client.post("/v1/products", json=[{"product_id": key, key: key}], headers=good)
            client.post("/v1/admin/keys", json={"name": key}, headers=good)

            def broken(rows: Any) -> Any:
                raise KeyError(f"a fault that quotes {key}")

            monkeypatch.setattr(gateway.held.current().documents, "hits", broken)
            assert client.post("/v1/search", json={"text": "x"}, headers=good).status_code == 500
    everything = json.dumps(lines())
    assert stored.id in everything
    assert "a fault that quotes frk_" in everything
    assert secret not in everything
    assert secret[:-1] not in everything


def test_files_are_turned_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logs, "FILE_BYTES", 20_000)
    handler = logs.TurnedFile(tmp_path / "log.jsonl")
    handler.setFormatter(JsonLines("test"))
    for number in range(5000):
        handler.emit(logging.makeLogRecord({"msg": f"line {number}", "levelname": "INFO"}))
    handler.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 1 + logs.FILES
    assert all(file.stat().st_size < 150_000 for file in files)  # 500 lines more than the limit at most
    assert json.loads((tmp_path / "log.jsonl.1").read_text().splitlines()[-1])["message"].startswith("line 4")


def test_a_folder_gets_a_file_a_process_and_nothing_twice(tmp_path: Path):
    logger = logging.getLogger("fuserank")
    before = list(logger.handlers), logger.level, logger.propagate
    try:
        logs.set_up("retriever", "WARNING", str(tmp_path / "logs"))
        logs.set_up("retriever", "WARNING", str(tmp_path / "logs"))
        logging.getLogger("fuserank.serve").warning("röd\n%s", "two lines", extra={"code": "x"})
        logging.getLogger("fuserank.serve").info("too quiet")
        (file,) = (tmp_path / "logs").iterdir()
        (line,) = file.read_text().splitlines()
        assert json.loads(line) | {"deployment": "retriever", "message": "röd\ntwo lines", "code": "x"} == json.loads(
            line
        )
    finally:
        for handler in set(logger.handlers) - set(before[0]):
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(before[1])
        logger.propagate = before[2]
