"""Ray Train's helpers give way, and nobody else."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fuserank.training.helpers import give_way

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SCHED_IDLE is Linux's")
NAMES = ("ray::DatasetManager.run", "ray::PreemptionWatcher", "ray::RayTrainWorker", "DatasetManager")


@pytest.fixture
def processes() -> Iterator[dict[str, int]]:
    started = [subprocess.Popen([name, "60"], executable="/bin/sleep") for name in NAMES]
    yield {name: process.pid for name, process in zip(NAMES, started, strict=True)}
    for process in started:
        process.kill()
        process.wait()


def test_helpers_run_on_idle_cores_and_workers_as_before(processes: dict[str, int]) -> None:
    assert give_way() >= 2
    policies = {name: os.sched_getscheduler(pid) for name, pid in processes.items()}
    idle, other = os.SCHED_IDLE, os.SCHED_OTHER
    assert policies == dict(zip(NAMES, (idle, idle, other, other), strict=True))
