"""Fixtures of the serving tests: one tiny run, and a gateway over it with every deployment in this process."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fuserank.config import Experiment
from serve.app import generation_folder, list_generations, read_manifest, store_url
from serve.chain import Chain
from serve.documents import Documents
from serve.feedback import Feedback
from serve.gateway import Gateway
from serve.image_encoder import ImageEncoder
from serve.reranker import RerankerDeployment
from serve.retriever import RetrieverDeployment
from serve.routes import create_app
from serve.text_encoder import TextEncoder
from tests.serve import shop as tiny_shop


class Local:
    """A deployment in this process, called like a handle; counts the batches it gets."""

    def __init__(self, callee: Any):
        self._callee = callee
        self.sizes: list[int] = []

    async def remote(self, items: list) -> Any:
        self.sizes.append(len(items))
        return await self._callee(items)


@pytest.fixture(scope="session")
def shop() -> ModuleType:
    return tiny_shop


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory, shop: ModuleType) -> Experiment:
    return shop.build_run(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="session")
def deployments(experiment: Experiment, shop: ModuleType) -> dict[str, Any]:
    folder = generation_folder(experiment)
    return {
        "text": TextEncoder(folder),
        "image": ImageEncoder(folder),
        "retriever": RetrieverDeployment(folder, experiment.index.candidates),
        "reranker": RerankerDeployment(folder, shop.MODALITIES),
        "feedback": Feedback(store_url(experiment), folder.name),
    }


@pytest.fixture
def gateway(experiment: Experiment, deployments: dict[str, Any]) -> Gateway:
    folder = generation_folder(experiment)
    manifest = read_manifest(folder)
    feedback = deployments["feedback"]
    chain = Chain(
        {"text": Local(deployments["text"]), "image": Local(deployments["image"])},
        Local(deployments["retriever"]),
        Local(deployments["reranker"]),
        Local(feedback.history),
    )
    documents = Documents(folder / "products.parquet", Path(manifest["media"]))
    generations = list_generations(folder)
    return Gateway(
        chain,
        feedback.add_events,
        feedback.add_impressions,
        documents,
        manifest["id"],
        manifest["model"],
        generations,
        experiment.serve.max_limit,
    )


@pytest.fixture
def client(gateway: Gateway) -> Iterator[TestClient]:
    with TestClient(create_app(gateway, 200_000, "test"), raise_server_exceptions=False) as client:
        yield client
