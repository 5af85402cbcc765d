"""Replicas of a machine load their models one after the other, so that those that answer keep most of its cores.

A redeployment starts one replica of every deployment at once; on two cores their imports left the others no time, and a
quarter of the requests failed. Keeps lock files in the system's temporary folder.
"""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CORES = 2  # of the machine for each replica that loads
WAIT_SECONDS = 120.0  # then it goes on anyhow: one that hangs must not keep all others from answering


@contextlib.contextmanager
def turn(slots: int | None = None, folder: Path | None = None, wait: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold one of the machine's places to load in for the length of the block; a process that dies frees its own.

    Args:
        slots: how many there are; None: one for CORES cores. folder: of the lock files. wait: seconds at most.
    """
    slots = slots or max(1, (os.cpu_count() or 1) // CORES)
    folder = folder or Path(tempfile.gettempdir()) / f"fuserank-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    deadline = time.monotonic() + wait
    with contextlib.ExitStack() as held:
        files = [held.enter_context((folder / f"loading-{slot}.lock").open("w")) for slot in range(slots)]
        while not any(_taken(file.fileno()) for file in files) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
