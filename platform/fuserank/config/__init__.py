"""One YAML file is one experiment: a frozen, typed tree whose sections stand in the order the data flows.

`load("workloads/configs/demo.yaml", ["fusion.kind=concat"])` reads a file, applies `--set` values by dotted path, and
validates. Unknown keys are refused with the nearest valid one. `dump` writes a file that loads to the same experiment.
"""

from fuserank.config.data import Generate, LabelQueries, Media, Preprocess, Records, Split, Storage, Table
from fuserank.config.deployments import Deployments, Gateways, Replicas, Single
from fuserank.config.experiment import Experiment, keys
from fuserank.config.file import dump, load, update, validate
from fuserank.config.guard import Guard
from fuserank.config.iterate import Iterate
from fuserank.config.model import Adapter, Encoders, Fusion, FusionKind, Loss, LossWeights, TextEncoder
from fuserank.config.online import Online
from fuserank.config.rules import Boost, Pin, Rules
from fuserank.config.runs import (
    Evaluate,
    Index,
    Policy,
    Pretrain,
    PretrainTask,
    Recommend,
    Serve,
    Store,
    Tracking,
    Train,
    Tune,
)
from fuserank.config.watch import Watch

__all__ = [
    "Adapter",
    "Boost",
    "Deployments",
    "Encoders",
    "Evaluate",
    "Experiment",
    "Fusion",
    "FusionKind",
    "Gateways",
    "Generate",
    "Guard",
    "Index",
    "Iterate",
    "LabelQueries",
    "Loss",
    "LossWeights",
    "Media",
    "Online",
    "Pin",
    "Policy",
    "Preprocess",
    "Pretrain",
    "PretrainTask",
    "Recommend",
    "Records",
    "Replicas",
    "Rules",
    "Serve",
    "Single",
    "Split",
    "Storage",
    "Store",
    "Table",
    "TextEncoder",
    "Tracking",
    "Train",
    "Tune",
    "Watch",
    "dump",
    "keys",
    "load",
    "update",
    "validate",
]
