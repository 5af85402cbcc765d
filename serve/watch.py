"""Starts a process's log, metrics and traces, and says what a deployment tells of each batch."""

import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Any

from fuserank import config
from serve import logs, metrics, tracing
from serve.envelope import Envelope, Result
from serve.turns import turn

log = logging.getLogger("fuserank.serve")


def start(deployment: str, settings: config.Watch) -> None:
    """Called once in each replica, before its deployment is made."""
    logs.set_up(deployment, settings.log_level, settings.log_folder)
    metrics.use(metrics.RaySink())
    if settings.traces is not None:
        tracing.start(deployment, settings.traces, settings.trace_share)


def watched(kind: type, name: str, settings: config.Watch) -> type:
    """The deployment's class, whose replicas are watched from their first moment; the class itself stays as it is."""

    class Watched(kind):
        """A deployment under watch."""

        def __init__(self, *args: Any, **options: Any):
            start(name, settings)
            with turn() if getattr(kind, "loads", False) else contextlib.nullcontext():
                super().__init__(*args, **options)

    Watched.__name__ = Watched.__qualname__ = kind.__name__
    return Watched


def batch(deployment: str, envelopes: Sequence[Envelope], results: Sequence[Result], seconds: float) -> None:
    """Tell of a batch that a deployment has just finished.

    Args:
        seconds: how long it took, its wait for the worker thread included.
    """
    metrics.record("fuserank_deployment_seconds", seconds, deployment=deployment)
    metrics.record("fuserank_deployment_batch_requests", len(envelopes), deployment=deployment)
    for result in results:
        if result.error is not None:
            metrics.record("fuserank_deployment_errors_total", deployment=deployment, code=result.error.code)
    end = time.time()
    for envelope in envelopes:
        tracing.add(
            deployment,
            envelope.trace,
            end - seconds,
            end,
            **{"fuserank.request_id": envelope.request_id, "fuserank.batch": len(envelopes)},
        )
    if log.isEnabledFor(logging.INFO):
        failed = {result.request_id: result.error.code for result in results if result.error is not None}
        log.info(
            "batch of %d",
            len(envelopes),
            extra={
                "ms": round(1000 * seconds, 2),
                "request_ids": [envelope.request_id for envelope in envelopes],
                "failed": failed or None,
            },
        )
