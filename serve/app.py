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
from fuserank.store.database import Database, run_database
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
    deployment = functools.partial(_deployment, settings.watch)
    encoders = {
        modality: deployment(kind, f"{modality}-encoder", settings.encoder_replicas).bind(folder, url)
        for modality, kind in ENCODERS.items()
        if modality in manifest["modalities"]
    }
    retriever = deployment(RetrieverDeployment, "retriever", settings.retriever_replicas)
    reranker = deployment(RerankerDeployment, "reranker", settings.reranker_replicas)
    host = http_host(settings.host)
    refuse_without_keys(host, url)
    feedback = deployment(Feedback, "feedback", 1, max_ongoing=1000)  # one writer: SQLite takes no more
    products = deployment(Products, "products", 1, max_ongoing=100)
    gateway = deployment(Ingress, "gateway", 1, serve.ingress(), max_ongoing=settings.queue + 1000)
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
            experiment.policy.online.fresh if experiment.policy.online else 0,
        ),
        reranker.bind(folder, url),
        feedback.bind(url, policy=experiment.policy),
        products.bind(folder, url, live_media, encoders, replicated, limits=media_limits(settings.guard)),
        url,
        live_media,
        settings,
        not is_loopback(host),
        experiment.policy,
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


def store_url(experiment: Experiment) -> str:
    """The database."""
    return experiment.store.url or run_database(experiment.run)[1]


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
    replicas: int,
    dress: Callable[[type], Any] = lambda kind: kind,
    max_ongoing: int = 8,
) -> serve.Deployment:
    wrap = serve.deployment(
        name=name,
        num_replicas=replicas,
        max_ongoing_requests=max_ongoing,
        ray_actor_options={"num_cpus": 0.1},  # a share for placement; each replica computes in one thread
        graceful_shutdown_timeout_s=10,
        health_check_period_s=5,
    )
    return wrap(dress(watched(kind, name, watch)))  # type: ignore[return-value]  # Ray types it as a decorated function
