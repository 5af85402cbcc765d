"""Fixtures of the serving tests: one tiny run, and a gateway over it with every deployment in this process."""

import functools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fuserank.config import Experiment
from fuserank.store.database import Database
from serve.app import generation_folder, index_folder, store_url
from serve.chain import Chain
from serve.clicks import ClickModels
from serve.encoder import Encoder
from serve.feedback import Feedback
from serve.gateway import Gateway
from serve.generations import listing
from serve.held import Held
from serve.image_encoder import ImageEncoder
from serve.policies import Followed, PolicyStage
from serve.products import Products
from serve.reranker import RerankerDeployment
from serve.retriever import RetrieverDeployment
from serve.routes import create_app
from serve.shown import Shown, hide, show
from serve.spool import Spool
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


class LocalEncoder(Local):
    """An encoder in this process."""

    def __init__(self, encoder: Encoder):
        super().__init__(encoder)
        self.products = Local(encoder.products)


def deploy(experiment: Experiment) -> dict[str, Any]:
    """Every deployment of a run's generation."""
    folder, url = generation_folder(experiment), store_url(experiment)
    encoders = {"text": TextEncoder(folder), "image": ImageEncoder(folder)}
    local = {modality: LocalEncoder(encoder) for modality, encoder in encoders.items()}
    return {
        **encoders,
        "retriever": RetrieverDeployment(
            folder,
            experiment.index.candidates,
            url,
            experiment.serve.compact_after,
            online=experiment.policy.online,
            rules=experiment.serve.rules,
        ),
        "reranker": RerankerDeployment(folder),
        "feedback": Feedback(
            url, policy=experiment.policy, run=experiment.run, retention_days=experiment.serve.retention_days
        ),
        "products": Products(folder, url, experiment.run / "store" / "media", local),
    }


def front(experiment: Experiment, deployments: dict[str, Any], follow: bool = False) -> Gateway:
    """A gateway over them; follow: it answers from the generation that the database names."""
    folder = generation_folder(experiment)
    feedback = deployments["feedback"]
    database, policy = Database(store_url(experiment)), experiment.policy
    clicks = ClickModels(experiment.run / "feedback" / "click")
    stage = PolicyStage(Followed(database, policy), policy, clicks) if policy.online else None
    chain = Chain(
        {"text": Local(deployments["text"]), "image": Local(deployments["image"])},
        Local(deployments["retriever"]),
        Local(deployments["reranker"]),
        Local(feedback.history),
        stage,
    )

    def opened(folder: Path) -> Shown:
        return show(folder, database, experiment.run / "store" / "media")

    return Gateway(
        chain,
        feedback.add_events,
        feedback.add_impressions,
        deployments["products"].change,
        Held("gateway", folder, opened, database if follow else None, close=hide),
        functools.partial(listing, database, index_folder(experiment)),
        experiment.serve.max_limit,
        policy=stage,
        spool=Spool(experiment.run / "store" / "spool", 10_000_000),
        introduce=deployments["products"].embed,
    )


@pytest.fixture(scope="session")
def shop() -> ModuleType:
    return tiny_shop


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory, shop: ModuleType) -> Experiment:
    return shop.build_run(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="session")
def deployments(experiment: Experiment) -> dict[str, Any]:
    return deploy(experiment)


@pytest.fixture
def gateway(experiment: Experiment, deployments: dict[str, Any]) -> Iterator[Gateway]:
    made = front(experiment, deployments)
    yield made
    made.held.stop()  # followers that nobody stops poll the database until the last test


@pytest.fixture
def client(gateway: Gateway) -> Iterator[TestClient]:
    with TestClient(create_app(gateway, 200_000, "test"), raise_server_exceptions=False) as client:
        yield client
