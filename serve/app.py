"""Wires the deployments: replicas and their resources stand here and nowhere else.

`serve run serve.app:build config=workloads/configs/demo.yaml` and `serve deploy` (import_path: serve.app:build) work,
with Ray's throughput flags set before Ray starts; `fuserank serve` sets them itself (launcher.py). Reads the run's
generations and its database.
"""

import functools
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import serve

from fuserank import artifacts, config
from fuserank.config import Experiment
from fuserank.errors import ConfigError
from fuserank.retrieval.generation import current_folder, read_manifest
from fuserank.store.database import Database, store_url
from fuserank.store.engine import refuse_on_a_cluster
from serve import tracing
from serve.audio_encoder import AudioEncoder
from serve.exposure import http_host, is_loopback, refuse_without_keys
from serve.feedback import Feedback
from serve.generations import adopt
from serve.image_encoder import ImageEncoder
from serve.ingress import Ingress, media_limits
from serve.products import Products
from serve.reranker import RerankerDeployment
from serve.retriever import RetrieverDeployment
from serve.text_encoder import TextEncoder
from serve.watch import watched

log = logging.getLogger("fuserank.serve")
ENCODERS = {"text": TextEncoder, "image": ImageEncoder, "audio": AudioEncoder}


def build(args: dict[str, Any]) -> serve.Application:
    """The application.

    Args:
        args: {"config": a config file's path, or its values}.

    Raises:
        ConfigError: no or a bad config. MissingStageError: no index yet. StoreError: SQLite on several nodes.
        ServeError: other machines can reach the service, and there is no API key.
    """
    if os.environ.get("RAY_SERVE_THROUGHPUT_OPTIMIZED") != "1":
        log.warning("Ray Serve runs without its throughput flags: start Ray with RAY_SERVE_THROUGHPUT_OPTIMIZED=1")
    experiment = _experiment(args)
    url, live_media = store_url(experiment), experiment.run.absolute() / "store" / "media"
    refuse_on_a_cluster(url, _nodes())
    folder = answering(experiment)
    manifest = read_manifest(folder)
    settings = experiment.serve
    tracing.check(settings.watch.traces)
    deployment, asked = functools.partial(_deployment, settings.watch), settings.deployments
    encoders = {
        modality: deployment(kind, f"{modality}-encoder", getattr(asked, f"{modality}_encoder")).bind(folder, url)
        for modality, kind in ENCODERS.items()
        if modality in manifest["modalities"]
    }
    retriever = deployment(RetrieverDeployment, "retriever", asked.retriever)
    reranker = deployment(RerankerDeployment, "reranker", asked.reranker)
    host = http_host(settings.host)
    refuse_without_keys(host, url)
    feedback = deployment(Feedback, "feedback", asked.feedback)
    products = deployment(Products, "products", asked.products)
    gateway = deployment(Ingress, "gateway", asked.gateway, serve.ingress(), settings.queue + 1000)
    replicated = ("gateway", "retriever", "reranker", "products", *(f"{modality}-encoder" for modality in encoders))
    return gateway.bind(
        folder,
        encoders,
        retriever.bind(
            folder,
            experiment.index.candidates,
            url,
            settings.compact_after,
            experiment.index.rerank_depth,
            settings.facet_depth,
            experiment.policy.online,
            settings.rules,
        ),
        reranker.bind(folder, url),
        feedback.bind(
            url,
            policy=experiment.policy,
            run=experiment.run.absolute(),
            retention_days=settings.retention_days,
        ),
        products.bind(folder, url, live_media, encoders, replicated, limits=media_limits(settings.guard)),
        url,
        live_media,
        settings,
        not is_loopback(host),
        Path(settings.spool_folder or experiment.run / "store" / "spool").absolute(),
        experiment.policy,
        artifacts.stage_path(experiment, "feedback").absolute() / "click",
    )


def generation_folder(experiment: Experiment) -> Path:
    """The folder of the run's newest generation.

    Raises:
        MissingStageError: no index yet.
    """
    return current_folder(index_folder(experiment)).absolute()


def index_folder(experiment: Experiment) -> Path:
    """The folder of the run's generations."""
    return artifacts.stage_folder(experiment, "index").absolute()


def answering(experiment: Experiment, newest: bool = False) -> Path:
    """The folder of the generation that answers: the one activated last, or the newest where none is, or if asked for.

    Raises:
        MissingStageError: no index yet. StoreError: the database failed.
    """
    generation_folder(experiment)  # says what is missing before the database is made
    with Database(store_url(experiment)) as database:
        return adopt(database, index_folder(experiment), newest)


def _nodes() -> int:
    """How many machines the connected Ray has."""
    import ray

    return sum(node["Alive"] for node in ray.nodes()) if ray.is_initialized() else 1


def _experiment(args: dict[str, Any]) -> Experiment:
    given = args.get("config")
    if isinstance(given, dict):
        return config.validate(given)
    if isinstance(given, str):
        return config.load(given)
    raise ConfigError("serve.app:build needs `config`.", "Run `serve run serve.app:build config=FILE`.")


def _deployment(
    watch: config.Watch,
    kind: type,
    name: str,
    asked: config.Replicas | config.Gateways | config.Single,
    dress: Callable[[type], Any] = lambda kind: kind,
    max_requests: int = 0,
) -> serve.Deployment:
    """`max_requests`: of a gateway's replica, which says itself what it cannot take."""
    gateway = isinstance(asked, config.Gateways)
    wrap = serve.deployment(
        name=name,
        max_ongoing_requests=max_requests if gateway else asked.max_ongoing_requests,
        max_queued_requests=-1 if gateway else asked.max_queued_requests,
        ray_actor_options={"num_cpus": asked.cpus},
        graceful_shutdown_timeout_s=10,
        health_check_period_s=5,
        logging_config={"enable_access_log": False},  # of its own; ours tells of every request and batch (watch.py)
        **_replicas(asked),
    )
    return wrap(dress(watched(kind, name, watch)))  # type: ignore[return-value]  # Ray types it as a decorated function


def _replicas(asked: config.Replicas | config.Gateways | config.Single) -> dict[str, Any]:
    """What Ray Serve is told of their number."""
    if isinstance(asked, config.Single):
        return {"num_replicas": 1}
    if asked.max_replicas is None or asked.max_replicas == asked.min_replicas:
        return {"num_replicas": asked.min_replicas}
    limits = {"min_replicas": asked.min_replicas, "max_replicas": asked.max_replicas}
    return {"autoscaling_config": limits | {"target_ongoing_requests": asked.target_ongoing_requests}}
