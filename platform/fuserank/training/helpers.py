"""Ray Train's helper actors of this machine, asked to give way to training.

Each wakes 100 times a second to look for signals, and where training has all cores each time stops one of the threads
that wait for one another: beside them a plain loop lost 8 % on two cores (docs/EXPERIMENTS.md, 2026-11-27). They have
next to nothing to do while workers train, so they run where a core is idle: SCHED_IDLE, which needs no privilege.
"""

import os
import re
from pathlib import Path

NAMES = ("PreemptionWatcher", "PlacementGroupCleaner", "DatasetManager", "SynchronizationActor")


def give_way() -> int:
    """Let every helper of this user run on idle cores alone; returns how many were found. Nothing outside Linux."""
    if not hasattr(os, "SCHED_IDLE"):
        return 0
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            called = re.match(rb"ray::(\w+)", (process / "cmdline").read_bytes())
            if called is None or called[1].decode() not in NAMES:
                continue
            for thread in (process / "task").iterdir():
                os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))
            found += 1
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
    return found
