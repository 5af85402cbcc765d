"""`fuserank serve`: answers HTTP from the run's current generation. Reads index/ and media, writes store/."""

import signal
import threading

from fuserank.config import Experiment
from serve import launcher
from serve.launcher import Running


def start(experiment: Experiment) -> Running:
    """Start the service on the connected Ray and return once it answers; `.stop()` ends it.

    Raises:
        MissingStageError: no index yet.
        ServeError: the port is in use, or the service does not come up.
    """
    return launcher.start(experiment)


def run(experiment: Experiment) -> dict:
    """Serve until Ctrl-C or SIGTERM. Raises as `start`."""
    running = start(experiment)
    print(f"storefront {running.url}/  ·  API documentation {running.url}/docs  ·  Ctrl-C ends it", flush=True)
    try:
        wait()
    finally:
        running.stop()
    return {"url": running.url, "generation": running.generation}


def wait() -> None:
    """Block until Ctrl-C or SIGTERM."""
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        asked.wait()
    except KeyboardInterrupt:
        print(flush=True)
    finally:
        signal.signal(signal.SIGTERM, before)
