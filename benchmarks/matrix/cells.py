"""The rows of the matrix: what is measured on which data with which settings and seeds, in the order it is run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalogues import speakers

FUSIONS = ("concat", "attention", "gated", "ensemble", "joint")
FINALISTS, SEEDS = 2, (0, 1, 2)
BASE = "fashion encoders"
LOGS: dict[str, dict[str, Any]] = {  # each with what its validation users asked for, beside sequences.yaml
    "Beauty": {},
    "Yelp": {},
    "LastFM": {"train.recommend.batch_size": 32, "train.recommend.epochs": 100},  # 1,090 users: 35 steps an epoch
}
MODEL = "the folder of the borrowed text encoder"  # put in where a cell is run: results name no folder


@dataclass(frozen=True)
class Cell:
    """One run of the stages. Cells of one `run` share its folder: its preprocess, pretrain and frozen outputs."""

    row: str
    run: str
    data: str  # folder below the data root, or a function of catalogues.py
    config: str
    sets: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    start: str | None = None  # the row whose model this one goes on from
    zero_shot: bool = False  # rank by the bare text encoder, no training

    @property
    def name(self) -> str:
        return f"{self.row}, seed {self.seed}"


def fashion() -> list[Cell]:
    """Encoders once, by the losses of their own heads and the alignment; then nothing but the fusion differs."""
    alone = {"loss.weights.fused": 0, "train.refine.steps": 0}
    cells = [Cell(BASE, "fashion", "fashion", "fashion.yaml", alone)]
    return cells + [fused(kind, 0) for kind in FUSIONS]


def fused(kind: str, seed: int) -> Cell:
    """One fusion on the frozen encoders of BASE."""
    sets = {
        "fusion.kind": kind,
        "encoders.text.adaptation": "frozen",
        "encoders.image.adaptation": "frozen",
        "pretrain.text.epochs": 0,
        "pretrain.image.epochs": 0,
        "loss.weights.align": 0.2,
        "train.epochs": 4,
        "train.batch_size": 512,
    }
    return Cell(f"fashion fusion {kind}", "fashion-fusion", "fashion", "fashion.yaml", sets, seed, start=BASE)


ACROSS, NOTHING = "pre-trained across", "from nothing"


def few_labels(seed: int) -> list[Cell]:
    """A tenth of the labels, encoders from self-supervision and from nothing."""
    sets = {"train.labels": 0.1, "train.epochs": 12, "train.batch_size": 64}
    none = {"pretrain.text.epochs": 0, "pretrain.image.epochs": 0}
    cross = {"pretrain.cross.epochs": 8}  # titles teach pictures, and need no label either
    row, data, file = "fashion 10 % labels", "fashion", "fashion.yaml"
    return [
        Cell(f"{row}, pre-trained", "fashion", data, file, sets, seed),
        Cell(f"{row}, {ACROSS}", "fashion-cross", data, file, sets | cross, seed),
        Cell(f"{row}, {NOTHING}", "fashion-nothing", data, file, sets | none, seed),
    ]


def borrowed() -> list[Cell]:
    """A pre-trained text encoder: as it is, by LoRA, whole; on fashion titles and on bank customers' intents."""
    common: dict[str, Any] = {
        "encoders.text.model": MODEL,
        "preprocess.tokenizer": MODEL,
        "pretrain.text.epochs": 0,
        "fusion.width": 384,
        "fusion.projection_layers": 1,
    }
    lora = {"encoders.text.adaptation": "lora", "train.encoder_learning_rate": 1e-3}
    full = {"encoders.text.adaptation": "full", "train.encoder_learning_rate": 1e-4}
    titles = common | {"encoders.image": None, "train.epochs": 3}
    intents = common | {
        "train.epochs": 30,
        "train.batch_size": 2,
        "train.queries": 64,
        "train.bank": 77,
        "train.token_dropout": 0.0,
        "train.refine.steps": 0,
        "loss.temperature": 0.05,
        "evaluate.allow_leaks": ["repeated-queries"],  # of the published test questions 7 of 3,080 are training's too
    }
    places = (
        ("fashion text", "fashion-minilm", "fashion", "fashion.yaml", titles),
        ("banking77", "banking77", "banking77", "intents.yaml", intents),
    )
    cells = []
    for row, run, data, file, sets in places:
        cells.append(Cell(f"{row}, MiniLM zero-shot", run, data, file, sets, zero_shot=True))
        cells.append(Cell(f"{row}, MiniLM LoRA", run, data, file, sets | lora))
        cells.append(Cell(f"{row}, MiniLM full", run, data, file, sets | full))
    return cells


def spoken(data: Path) -> list[Cell]:
    """Digits of a speaker nobody has heard, and spoken names of products."""
    cells = []
    for speaker in speakers(data) if (data / "voice").is_dir() else []:
        sets = {"records.split.groups": {speaker: "evaluation"}}
        cells.append(Cell(f"digits of {speaker}", f"digits-{speaker}", "digits", "digits.yaml", sets))
    cells.append(Cell("generated shop", "demo", "", "demo.yaml", {"evaluate.recall_k": 10}))
    return cells


def first(data: Path, with_model: bool) -> list[Cell]:
    """Every row once."""
    return [*fashion(), *few_labels(0), *(borrowed() if with_model else []), *spoken(data)]


def further(best: list[str]) -> list[Cell]:
    """More seeds of the finalists (fusion kinds, best first on validation) and of what pre-training is worth."""
    seeds = SEEDS[1:]
    compared = [c for seed in seeds for c in few_labels(seed) if c.row.endswith((ACROSS, NOTHING))]
    return compared + [fused(kind, seed) for seed in seeds for kind in best]


def next_products() -> list[Cell]:
    """What each user turns to last, of the behaviour logs: seeds one after the other, so that all data come early."""
    return [
        Cell(
            f"next product, {log}",
            f"sequences-{log}".lower(),
            "sequences",
            "sequences.yaml",
            {
                "records.events.files": [f"{log}.txt"],
                "records.products.files": [f"{log}_item2attributes.json"],
                **LOGS[log],
            },
            seed,
        )
        for seed in SEEDS
        for log in LOGS
    ]
