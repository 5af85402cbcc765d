"""OpenTelemetry traces: a span a request, one for its wait at the gateway, and one for each deployment it passed.

Needs the extra `otel`; without serve.watch.traces nothing here costs more than a comparison. A batch serves many
requests, so each of them gets a span of the batch's own times. Sends spans to a collector by OTLP over HTTP.
"""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fuserank.errors import ConfigError

_tracer: Any = None  # of this process


def check(endpoint: str | None) -> None:
    """Raises ConfigError if traces are asked for and the extra is missing."""
    if endpoint is None:
        return
    try:
        importlib.import_module("opentelemetry.exporter.otlp.proto.http")
    except ImportError:
        raise ConfigError(
            "serve.watch.traces needs OpenTelemetry's exporter.", "Run `pip install fuserank[otel]`."
        ) from None


def start(deployment: str, endpoint: str, share: float) -> Any:
    """Trace this process from now on; returns the provider, whose `shutdown` sends what is left.

    Args:
        endpoint: the collector's URL.
        share: of the requests without a trace of their own that are traced.
    """
    global _tracer
    check(endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    resource = Resource.create({"service.name": "fuserank", "service.instance.id": deployment})
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(share)), resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    _tracer = provider.get_tracer("fuserank")
    return provider


def stop() -> None:
    """Trace no more."""
    global _tracer
    _tracer = None


@contextmanager
def request(headers: Mapping[str, str]) -> Iterator[Any]:
    """The span of one HTTP request, in the sender's trace if it sent a `traceparent`; None where nothing traces."""
    if _tracer is None:
        yield None
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    parent = TraceContextTextMapPropagator().extract(dict(headers))
    with _tracer.start_as_current_span("request", parent, SpanKind.SERVER) as span:
        yield span


def context() -> str | None:
    """The current span as a W3C `traceparent`, for envelopes; None where nothing traces or this request is left out."""
    if _tracer is None:
        return None
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if not trace.get_current_span().get_span_context().trace_flags.sampled:
        return None
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def add(name: str, parent: str | None, begin: float, end: float, **attributes: str | int | float) -> None:
    """A finished span below `parent` (a traceparent); times in seconds since the epoch."""
    if _tracer is None or parent is None:
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    above = TraceContextTextMapPropagator().extract({"traceparent": parent})
    span = _tracer.start_span(name, above, attributes=attributes, start_time=int(begin * 1e9))
    span.end(int(end * 1e9))
