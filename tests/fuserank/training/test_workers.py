"""Several workers, and a batch in several parts, train as one worker does on the whole batch."""

import contextlib
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as spawn

from fuserank import config
from fuserank.training.group import ALONE, Group
from fuserank.training.loop import Fit
from fuserank.training.session import shard
from fuserank.training.splits import open_splits
from fuserank.training.start import adapt_encoders, new_model
from fuserank.training.state import capture, load_state, write_state
from fuserank.training.supervised import Supervised, new_fit

CPU = torch.device("cpu")
STEPS = 20


class StoppedError(Exception):
    """Ends a run from within."""


def begin(experiment: config.Experiment, preprocess: Path, group: Group = ALONE) -> tuple[Supervised, Fit]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = new_model(experiment, preprocess, None)
    splits = open_splits(preprocess, model.modalities, 4)
    steps = experiment.train.epochs * splits.train.steps(experiment.train.batch_size)
    job = Supervised(
        model, splits, experiment, CPU, group=group, adaptations=adapt_encoders(model, experiment.encoders, steps)
    )
    if experiment.train.strategy == "fsdp" and group.world > 1:
        sharded = shard(model.encoders, group, CPU)
        fit = new_fit(job.objective, experiment.train, steps)
        fit.sharded = sharded
        return job, fit
    fit = new_fit(job.objective, experiment.train, steps)
    if group.world > 1:
        fit.module = torch.nn.parallel.DistributedDataParallel(fit.module, find_unused_parameters=True)
    return job, fit


def trained(job: Supervised, fit: Fit, steps: int = STEPS) -> dict:
    """Weights after so many steps, and what validation says then."""

    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if done == steps:
            raise StoppedError

    with contextlib.suppress(StoppedError):
        while True:
            job.epoch(fit, count)
    return capture(fit, {"score": job.validate()["ndcg@10"]})


def settings(experiment: config.Experiment, **more: object) -> config.Experiment:
    """Text with dropout, prices, a bank and histories; no pictures, because their encoder has batch statistics."""
    sets = {
        "train.epochs": 8,
        "train.bank": 30,
        "train.sequences": 7,
        "encoders.image": None,
    }
    return config.update(experiment, sets | {f"train.{name}": value for name, value in more.items()})


def _worker(rank: int, world: int, port: int, experiment: config.Experiment, preprocess: Path, out: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=world)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fuserank.training.encode.bfloat16_pays", lambda device: False)
        values = trained(*begin(experiment, preprocess, Group(rank, world)))
    if rank == 0:
        write_state(values, out)
    dist.barrier()
    dist.destroy_process_group()


def on_workers(world: int, experiment: config.Experiment, preprocess: Path, out: Path) -> dict:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn.spawn(_worker, (world, port, experiment, preprocess, out), nprocs=world)
    return torch.load(out / "state.pt", weights_only=True)


def furthest(one: dict, two: dict) -> float:
    assert one.keys() == two.keys()
    return max((one[name].double() - two[name].double()).abs().max().item() for name in one)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_workers_are_one(strategy: str, experiment: config.Experiment, preprocess: Path, tmp_path: Path) -> None:
    chosen = settings(experiment, strategy=strategy)
    alone = trained(*begin(chosen, preprocess))
    both = on_workers(2, chosen, preprocess, tmp_path)
    assert both["position"] == alone["position"]
    assert furthest(both["module"], alone["module"]) < 1e-4
    assert both["extra"]["score"] == pytest.approx(alone["extra"]["score"], abs=1e-4)
    start = begin(chosen, preprocess)[0].objective.state_dict()
    assert furthest(alone["module"], start) > 1e-2  # 20 steps do move the weights


def test_three_workers_are_one(experiment: config.Experiment, preprocess: Path, tmp_path: Path) -> None:
    """18 products a batch share out evenly, those with a text or a price do not."""
    chosen = settings(experiment)
    alone, three = trained(*begin(chosen, preprocess)), on_workers(3, chosen, preprocess, tmp_path)
    assert furthest(three["module"], alone["module"]) < 1e-4


def test_parts_are_the_whole(experiment: config.Experiment, preprocess: Path) -> None:
    whole = trained(*begin(settings(experiment), preprocess))
    parts = trained(*begin(settings(experiment, accumulate=4), preprocess))
    assert furthest(whole["module"], parts["module"]) < 1e-4


@pytest.mark.parametrize("stop", [1, 2, 4, 7])
def test_resume_within_an_epoch_is_exact(
    stop: int, experiment: config.Experiment, preprocess: Path, tmp_path: Path
) -> None:
    """A run cut off after any step (3 steps an epoch) ends with the weights of one that was not."""
    chosen = config.update(experiment, {"train.bank": 30, "train.epochs": 4})
    job, fit = begin(chosen, preprocess)
    straight = [job.epoch(fit) for _ in range(4)]
    first, cut = begin(chosen, preprocess)
    count = 0

    def kill() -> None:
        nonlocal count
        count += 1
        if count == stop:
            write_state(capture(cut, {"remembered": first.remembered()}), tmp_path)
        if count == stop + 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        [first.epoch(cut, kill) for _ in range(4)]
    torch.manual_seed(99)
    second, resumed = begin(chosen, preprocess)
    torch.rand(1000)
    second.kept = load_state(resumed, tmp_path)["remembered"]
    history = [second.epoch(resumed) for _ in range(4 - resumed.epoch)]
    assert history == straight[4 - len(history) :]
    assert furthest(second.objective.state_dict(), job.objective.state_dict()) == 0


def test_share_and_collect() -> None:
    for count in (1, 2, 5, 6, 7):
        for world in (1, 2, 3):
            shares = [Group(rank, world).share(count) for rank in range(world)]
            assert len({len(share) for share in shares}) == 1
            woven = np.stack(shares, 1).ravel()[:count]
            assert woven.tolist() == list(range(count))
