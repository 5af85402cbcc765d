"""What is counted and timed, and how it gets to Prometheus: through Ray's exporter, which every node has.

A process outside of Ray Serve counts nothing unless a test gives it somewhere to count (`use`). Names here are without
the `ray_` that Ray's exporter puts before them. docs/OPERATIONS.md explains each, dashboard.json draws them.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


@dataclass(frozen=True)
class Metric:
    """One family of time series."""

    kind: Literal["counter", "gauge", "histogram"]
    text: str
    tags: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS: dict[str, Metric] = {
    "fuserank_requests_total": Metric("counter", "answers given", ("endpoint", "status")),
    "fuserank_errors_total": Metric("counter", "answers that are errors, by their code", ("endpoint", "code")),
    "fuserank_request_seconds": Metric(
        "histogram", "from a request's first byte to its answer", ("endpoint",), SECONDS
    ),
    "fuserank_stage_seconds": Metric("histogram", "time in each stage of the chain, of requests", ("stage",), SECONDS),
    "fuserank_degraded_total": Metric("counter", "parts of answers left out to keep the deadline", ("part",)),
    "fuserank_waiting_requests": Metric("gauge", "requests that wait at the gateway for a batch"),
    "fuserank_batch_requests": Metric("histogram", "requests in a micro-batch that left the gateway", (), SIZES),
    "fuserank_deployment_seconds": Metric(
        "histogram", "time of one batch in a deployment, its queue included", ("deployment",), SECONDS
    ),
    "fuserank_deployment_batch_requests": Metric(
        "histogram", "requests in a batch at a deployment", ("deployment",), SIZES
    ),
    "fuserank_deployment_errors_total": Metric(
        "counter", "requests that failed in a deployment", ("deployment", "code")
    ),
    "fuserank_embedding_cache_total": Metric(
        "counter", "queries' parts looked up in the embedding cache: hit or miss", ("modality", "outcome")
    ),
    "fuserank_index_seq": Metric("gauge", "the last change of the catalogue that is shown", ("deployment",)),
    "fuserank_index_lag_seconds": Metric("gauge", "age of the oldest change that is not shown yet", ("deployment",)),
    "fuserank_generation_info": Metric("gauge", "1 for the generation that answers", ("deployment", "generation")),
    "fuserank_events_total": Metric("counter", "events sent: accepted, duplicate or rejected", ("outcome",)),
    "fuserank_slates_total": Metric("counter", "slates a policy answered: its own or random", ("scenario", "drawn")),
    "fuserank_learnt_total": Metric("counter", "answers and events that policies have learnt from"),
    "fuserank_changes_total": Metric("counter", "changes of products sent", ("kind", "outcome")),
    "fuserank_impressions_waiting": Metric("gauge", "impressions that are not stored yet"),
    "fuserank_impressions_lost_total": Metric("counter", "impressions that could not be kept"),
    "fuserank_spool_bytes": Metric("gauge", "impressions on a gateway's disk, stored ones included until deleted"),
}


class Sink(Protocol):
    """Where numbers go."""

    def add(self, name: str, value: float, tags: dict[str, str]) -> None:
        """Count, set or observe, by the metric's kind."""
        ...


class RaySink:
    """Hands numbers to Ray's exporter; about 3 µs each."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def add(self, name: str, value: float, tags: dict[str, str]) -> None:
        """As `Sink.add`."""
        if (record := self._made.get(name)) is None:
            record = self._made[name] = self._make(name)
        record(value, tags)

    def _make(self, name: str) -> Any:
        from ray.util import metrics

        metric = METRICS[name]
        if metric.kind == "histogram":
            return metrics.Histogram(name, metric.text, list(metric.buckets), metric.tags).observe
        if metric.kind == "gauge":
            return metrics.Gauge(name, metric.text, metric.tags).set
        return metrics.Counter(name, metric.text, metric.tags).inc


class Tally:
    """Keeps every number, for tests: (name, sorted tags) → values in order."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = {}

    def add(self, name: str, value: float, tags: dict[str, str]) -> None:
        """As `Sink.add`; refuses what Ray would."""
        if set(tags) != set(METRICS[name].tags):
            raise ValueError(f"{name} has the tags {METRICS[name].tags}, not {sorted(tags)}")
        self.values.setdefault((name, tuple(sorted(tags.items()))), []).append(value)

    def of(self, name: str, **tags: str) -> list[float]:
        """The numbers of one series."""
        return self.values.get((name, tuple(sorted(tags.items()))), [])


_sink: Sink | None = None  # of this process


def use(sink: Sink | None) -> None:
    """Send the numbers of this process there; None: nowhere."""
    global _sink
    _sink = sink


def record(name: str, value: float = 1, **tags: str) -> None:
    """Count, set or observe, by the metric's kind."""
    if _sink is not None and (value > 0 or METRICS[name].kind != "counter"):  # Ray refuses to count nothing
        _sink.add(name, value, tags)
