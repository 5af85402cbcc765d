"""What the service tells about itself (`serve.watch`); metrics need no setting."""

from typing import Literal

from fuserank.config.section import Fraction, Section


class Watch(Section):
    """Logs and traces."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_folder: str | None = None  # JSON lines, a file a process, turned over; null: standard error, which Ray keeps
    traces: str | None = None  # OTLP over HTTP, e.g. http://localhost:4318/v1/traces; needs the extra "otel"
    trace_share: Fraction = 1.0  # of the requests that come without a trace of their own
