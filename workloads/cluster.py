"""Connects a command to Ray: a running cluster where one is meant (RAY_ADDRESS, or inside a job), else its own."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def python_path() -> str:
    """Where workers find the code when nothing is installed: the checkout's platform/ folder and its root."""
    parts = [str(ROOT / "platform"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(part for part in parts if part)


@contextlib.contextmanager
def connect(flags: dict[str, str] | None = None) -> Iterator[None]:
    """Ray for the length of the block.

    Args:
        flags: environment variables that must be set before Ray starts (Serve's throughput flags).
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 lets anything else on the machine go first
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    for key, value in (flags or {}).items():
        os.environ.setdefault(key, value)
    import ray  # after the flags: Ray reads them at import and at start

    if ray.is_initialized():
        yield
        return
    joined = "RAY_ADDRESS" in os.environ or "RAY_JOB_ID" in os.environ
    if not joined:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # this command's own cluster, on loopback, for its own life
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # nobody takes its one machine away
    environment = {"env_vars": {"PYTHONPATH": python_path()}}
    ray.init(
        address=None if joined else "local",
        include_dashboard=None if joined else False,
        runtime_env=None if joined else environment,
        log_to_driver=bool(os.environ.get("FUSERANK_WORKER_LOGS")),
        logging_level=logging.WARNING,
    )
    try:
        yield
    finally:
        ray.shutdown()
