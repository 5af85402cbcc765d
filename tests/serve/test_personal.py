"""A search with a user id is scored as offline, by the events in the store at that moment; without one, as nobody's."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from fuserank.feedback.behaviour import Behaviour
from fuserank.models.candidates import feature_names
from fuserank.models.checkpoint import load_reranker, save_weights
from fuserank.models.reranker import Reranker
from fuserank.retrieval.generation import open_generation
from fuserank.retrieval.pipeline import Candidates
from fuserank.retrieval.rerank_inputs import rerank, rerank_inputs
from serve.app import generation_folder
from serve.messages import Ask, RetrieverQuery
from serve.routes import create_app
from tests.serve import conftest
from tests.serve import shop as tiny_shop


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any], Path]:
    """A run whose reranker was kept: every weight away from zero."""
    experiment = tiny_shop.build_run(tmp_path_factory.mktemp("personal"))
    folder = generation_folder(experiment)
    opened = open_generation(folder)
    torch.manual_seed(3)
    sizes = (len(tiny_shop.MODALITIES), opened.catalogue.modality_vectors.shape[2], opened.catalogue.vectors.shape[1])
    reranker = Reranker(len(feature_names(tiny_shop.MODALITIES)), *sizes)
    with torch.no_grad():
        for parameter in reranker.parameters():
            parameter.normal_(0, 0.4)
    save_weights(reranker, folder / "model" / "reranker.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"reranker": {"kept": 1.0, "attends": 1.0}}))
    return experiment, conftest.deploy(experiment), folder


def ask(client: TestClient, **more: str) -> dict[str, float]:
    answer = client.post("/v1/search", json={"text": "red shoe", "limit": 15, **more})
    assert answer.status_code == 200, answer.text
    return {hit["product_id"]: hit["score"] for hit in answer.json()["hits"]}


def test_offline_equals_served(served: tuple[Any, dict[str, Any], Path]) -> None:
    experiment, deployments, folder = served
    clicked, now = ["p03", "p08", "p21"], int(time.time() * 1000)
    events = [
        {"event_id": f"x{n}", "type": "click", "user_id": "ann", "product_id": p, "timestamp": now - 9000 + n}
        for n, p in enumerate(clicked)
    ]
    with TestClient(create_app(conftest.front(experiment, deployments), 200_000, "test")) as client:
        before = ask(client, user_id="ann")
        assert before == ask(client) == ask(client, user_id="bob")
        assert client.post("/v1/events", json=events).json()["accepted"] == 3
        after = ask(client, user_id="ann")
        assert ask(client, user_id="bob") == before
    assert after != before, "the user's events change the next answer"

    catalogue = open_generation(folder).catalogue
    encoder, searcher = (deployments[name].held.current() for name in ("text", "retriever"))
    text = deployments["text"].work(encoder, ["red shoe"])[0]
    model = searcher._model
    vectors, mask = torch.zeros(1, 4, model.width), torch.zeros(1, 4, dtype=torch.bool)
    vectors[0, 0], mask[0, 0] = torch.from_numpy(np.array(text)), True
    with torch.inference_mode():
        fused, heads = (t[0].numpy() for t in model.search_vectors(vectors, mask))
    query = RetrieverQuery(Ask("search", 15), "red shoe", {"text": np.array(text)})
    rows = searcher.answer([query])[0].rows
    found: Candidates = scored(catalogue, "red shoe", fused, heads, rows)
    recent = [catalogue.rows[p] for p in clicked]
    behaviour, reranker = Behaviour.load(folder / "model"), load_reranker(folder / "model", tiny_shop.MODALITIES)
    for past, shown in ((recent, after), ([], before)):
        scores = rerank(reranker, rerank_inputs(found, heads, catalogue, behaviour, past))
        offline = {catalogue.ids[row]: float(score) for row, score in zip(found.rows, scores, strict=True)}
        assert len(shown) == 15
        assert shown == pytest.approx({product: offline[product] for product in shown}, abs=1e-5)


def scored(catalogue: Any, text: str, fused: np.ndarray, heads: np.ndarray, rows: np.ndarray) -> Candidates:
    from fuserank.retrieval.pipeline import Retriever, SearchRequest

    return Retriever(catalogue).score(SearchRequest(text, fused, heads), rows)
