"""Sections on the deployments of the service: how many replicas of each, and what a replica may take."""

from typing import Annotated

from pydantic import Field, model_validator

from fuserank.config.section import Positive, Section

Share = Annotated[float, Field(gt=0)]


class Single(Section):
    """A deployment of one replica: what it does must not be done twice."""

    cpus: Share = 0.1  # a share for placement; each replica computes in one thread
    max_ongoing_requests: Positive = 1000  # calls a replica works on at once
    max_queued_requests: Positive = 1000  # calls that wait at each caller before further ones are refused


class Replicas(Section):
    """A deployment of any number of replicas."""

    min_replicas: Positive = 1
    max_replicas: Positive | None = None  # null: as many as min_replicas, always
    target_ongoing_requests: Share = 2.0  # batches in a replica beyond which Ray Serve adds one
    cpus: Share = 0.1  # a share for placement; each replica computes in one thread
    max_ongoing_requests: Positive = 8  # batches a replica takes at once
    max_queued_requests: Positive = 64  # batches that wait at each caller before further ones are refused

    @model_validator(mode="after")
    def _ordered(self) -> "Replicas":
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas ({self.max_replicas}) lies below min_replicas ({self.min_replicas}): raise it, or leave "
                "it out for a fixed number"
            )
        if self.target_ongoing_requests > self.max_ongoing_requests:
            raise ValueError(
                f"target_ongoing_requests ({self.target_ongoing_requests:g}) is never reached: a replica takes "
                f"max_ongoing_requests ({self.max_ongoing_requests}) at most"
            )
        return self


class Gateways(Section):
    """The gateway's replicas; how many requests one takes follows from serve.queue."""

    min_replicas: Positive = 1
    max_replicas: Positive | None = None  # null: as many as min_replicas, always
    target_ongoing_requests: Share = 64.0  # requests in a replica beyond which Ray Serve adds one
    cpus: Share = 0.1

    @model_validator(mode="after")
    def _ordered(self) -> "Gateways":
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas ({self.max_replicas}) lies below min_replicas ({self.min_replicas})")
        return self


class Deployments(Section):
    """What Ray Serve runs."""

    gateway: Gateways = Gateways()
    text_encoder: Replicas = Replicas()
    image_encoder: Replicas = Replicas()
    audio_encoder: Replicas = Replicas()
    retriever: Replicas = Replicas()  # each holds the whole index
    reranker: Replicas = Replicas()
    feedback: Single = Single()
    products: Single = Single()
