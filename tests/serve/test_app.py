"""The application that Ray Serve is given carries what the config says of each deployment."""

from pathlib import Path
from typing import Any

import pytest
import ray
from ray.serve._private.build_app import build_app

from fuserank import config
from fuserank.config import Experiment
from fuserank.errors import ConfigError
from serve.app import build


def built(experiment: Experiment, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """Name → deployment of the application."""
    file = tmp_path / "shop.yaml"
    config.dump(config.update(experiment, {"store.url": f"sqlite:///{tmp_path}/app.db", **changes}), file)
    application = build({"config": str(file)})
    assert not ray.is_initialized(), "building an application starts no Ray"
    return {one.name: one for one in build_app(application, name="shop").deployments}


def test_what_nobody_configures_is_one_small_bounded_replica_of_each(experiment: Experiment, tmp_path: Path):
    deployments = built(experiment, tmp_path)
    names = {"gateway", "text-encoder", "image-encoder", "retriever", "reranker", "feedback", "products"}
    assert set(deployments) == names
    for name, deployment in deployments.items():
        assert deployment.num_replicas == 1
        assert deployment._deployment_config.autoscaling_config is None
        assert deployment.ray_actor_options["num_cpus"] == 0.1
        if name != "gateway":
            assert 0 < deployment.max_queued_requests <= 1000, "no queue without an end"
    assert deployments["retriever"].max_ongoing_requests == 8
    assert deployments["gateway"].max_ongoing_requests == experiment.serve.queue + 1000


def test_each_deployment_is_what_the_config_says(experiment: Experiment, tmp_path: Path):
    deployments = built(
        experiment,
        tmp_path,
        **{
            "serve.deployments.retriever.min_replicas": 2,
            "serve.deployments.retriever.max_replicas": 5,
            "serve.deployments.retriever.target_ongoing_requests": 1.5,
            "serve.deployments.retriever.cpus": 1.0,
            "serve.deployments.image_encoder.min_replicas": 3,
            "serve.deployments.image_encoder.max_ongoing_requests": 4,
            "serve.deployments.image_encoder.max_queued_requests": 16,
            "serve.deployments.gateway.max_replicas": 4,
            "serve.deployments.gateway.target_ongoing_requests": 32.0,
            "serve.deployments.feedback.max_ongoing_requests": 50,
        },
    )
    scaled = deployments["retriever"]._deployment_config.autoscaling_config
    assert (scaled.min_replicas, scaled.max_replicas, scaled.target_ongoing_requests) == (2, 5, 1.5)
    assert deployments["retriever"].ray_actor_options["num_cpus"] == 1.0
    image = deployments["image-encoder"]
    assert (image.num_replicas, image.max_ongoing_requests, image.max_queued_requests) == (3, 4, 16)
    assert deployments["text-encoder"].num_replicas == 1
    scaled = deployments["gateway"]._deployment_config.autoscaling_config
    assert (scaled.min_replicas, scaled.max_replicas, scaled.target_ongoing_requests) == (1, 4, 32.0)
    assert deployments["feedback"].max_ongoing_requests == 50


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"retriever": {"min_replicas": 3, "max_replicas": 2}}, "max_replicas (2) lies below min_replicas (3)"),
        ({"gateway": {"min_replicas": 3, "max_replicas": 2}}, "max_replicas (2) lies below min_replicas (3)"),
        ({"reranker": {"target_ongoing_requests": 9}}, "is never reached"),
        ({"text_encoder": {"min_replicas": 0}}, "min_replicas"),
        ({"retriever": {"cpus": 0}}, "cpus"),
        ({"feedback": {"min_replicas": 2}}, "min_replicas"),
        ({"retreiver": {}}, "retriever"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], words: str):
    with pytest.raises(ConfigError) as refused:
        config.validate({"serve": {"deployments": changes}})
    assert words in f"{refused.value.message} {refused.value.hint}"
