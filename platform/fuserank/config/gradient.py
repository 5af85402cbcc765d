"""How the reranker is fine-tuned on logged searches (`policy.gradient`)."""

from typing import Annotated

from pydantic import Field

from fuserank.config.section import Positive, Section


class Gradient(Section):
    """Policy gradient on what a policy served, near the reranker that answers."""

    limit: Annotated[float, Field(gt=0)] = 0.1  # nats: mean KL of the new reranker's policy from the old one's
    temperature: Annotated[float, Field(gt=0)] = 0.5  # of both, in standard deviations of an answer's scores
    cap: Annotated[float, Field(gt=0)] = 20.0  # largest importance weight
    epochs: Positive = 20
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    answers: Positive = 10_000  # the latest searches that are read; some 100 kB of memory each
