"""The service's log: one JSON object a line, with the request's id in every deployment that touches it.

Writes standard error, which Ray keeps in its session's log folder (worker-*.err), or files in a folder of its own.
"""

import datetime
import json
import logging
import os
from logging.handlers import RotatingFileHandler
from pathlib import Path

from fuserank.store.keys import redact
from serve.current import CURRENT

FILE_BYTES, FILES = 50_000_000, 5  # a file is turned over at this size; so many older ones stay
_STANDARD = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """A record as JSON: time, level, deployment, pid, message, whatever `extra` held, an exception as `error`. No line
    ever holds an API key's secret, whoever quoted it."""

    def __init__(self, deployment: str):
        super().__init__()
        self._deployment = deployment

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, object] = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "deployment": self._deployment,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if (current := CURRENT.get()) is not None:
            line["request_id"] = current.request_id
        line |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD and value is not None}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return redact(json.dumps(line, ensure_ascii=True, default=str))


class TurnedFile(RotatingFileHandler):
    """A rotating file whose size is looked at now and then: looking costs more than writing a line."""

    EVERY = 500

    def __init__(self, file: Path):
        super().__init__(file, maxBytes=FILE_BYTES, backupCount=FILES, encoding="utf-8")
        self._lines = 0

    def shouldRollover(self, record: logging.LogRecord) -> int:  # noqa: N802
        """Whether to start the next file."""
        self._lines += 1
        return super().shouldRollover(record) if self._lines % self.EVERY == 0 else False


def set_up(deployment: str, level: str, folder: str | None = None) -> None:
    """Send this process's `fuserank` log to standard error or into `folder`, in place of where it went before."""
    logger = logging.getLogger("fuserank")
    for former in [handler for handler in logger.handlers if isinstance(handler.formatter, JsonLines)]:
        logger.removeHandler(former)
        former.close()
    handler: logging.Handler = logging.StreamHandler()
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        file = Path(folder) / f"{deployment}-{os.uname().nodename}-{os.getpid()}.jsonl"
        handler = TurnedFile(file)
    handler.setFormatter(JsonLines(deployment))
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
