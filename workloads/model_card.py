"""The model card of a training run: what it was trained on, how, what came out, and what it is not for.

After Mitchell et al. 2019, https://arxiv.org/abs/1810.03993. Writes train/model_card.md and train/curves.png.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fuserank.config import Experiment
from fuserank.evaluation import plots


def write_card(experiment: Experiment, preprocess: Path, folder: Path, summary: dict[str, Any]) -> None:
    """
    Args:
        preprocess: the finished stage; folder: of the finished training, with history.jsonl; summary: its last report.
    """
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    epochs = {line["epoch"]: line for line in history if line["task"] == "train"}
    scores: dict[str, list[tuple[int, float]]] = {}
    for epoch, line in sorted(epochs.items()):
        for key in (k for k in line if k.endswith("ndcg@10")):
            name = "fused" if key == "ndcg@10" else key.removesuffix("_ndcg@10")
            scores.setdefault(name, []).append((epoch, line[key]))
    picture = ""
    if scores:
        (folder / "curves.png").write_bytes(plots.curves(scores, "epoch", "validation nDCG@10"))
        picture = "\n![validation nDCG@10 by epoch](curves.png)\n"
    (folder / "model_card.md").write_text(
        f"""# Model card: {experiment.name}

## Data

{_data(preprocess)}

Encoders, fusion and recommender learn from the training split alone; the validation split chooses epochs and settings.
What is missing in a product (text, picture, sound, price, attributes) is masked, not filled in.

## Model

{_parts(summary["parameters"])}

Fusion: {experiment.fusion.kind}, width {experiment.fusion.width}.
Encoders: {_encoders(experiment, summary["parameters"])}.
Seed {experiment.seed}.

## Result

Best validation nDCG@10 of the fused score: **{summary["best"]:.4f}** (epoch {summary["best_epoch"]} of
{summary["epoch"]}, then {experiment.train.refine.steps} refining steps). It chose the epoch, so it flatters: what
counts are the held-out queries of `fuserank evaluate`.
{picture}
## Limits

Made for this shop's catalogue and language. Clicks and judgments carry the biases of those who gave them and of what
they were shown. Rankings say nothing of a product's quality or safety.
""",
        encoding="utf-8",
    )


def _data(preprocess: Path) -> str:
    lines = ["| records | all | training | validation | evaluation |", "|---|---|---|---|---|"]
    for name in ("products", "queries"):
        if (file := preprocess / f"{name}.parquet").is_file():
            split = Counter(pq.read_table(file, columns=["split"])["split"].to_pylist())
            shares = " | ".join(str(split[s]) if any(split) else "–" for s in ("training", "validation", "evaluation"))
            lines.append(f"| {name} | {sum(split.values())} | {shares} |")
    for name in ("judgments", "events"):
        if (file := preprocess / f"{name}.parquet").is_file():
            lines.append(f"| {name} | {pq.ParquetFile(file).metadata.num_rows} | | | |")
    return "\n".join(lines)


def _parts(parameters: dict[str, dict[str, int]]) -> str:
    rows = [f"| {name} | {held['trained']:,} | {held['total']:,} |" for name, held in parameters.items()]
    return "\n".join(["| part | trained parameters | all |", "|---|---|---|", *rows])


def _encoders(experiment: Experiment, parameters: dict[str, Any]) -> str:
    told = []
    for modality in experiment.encoders.modalities:
        if f"encoders.{modality}" not in parameters:  # attributes of a shop that has none
            continue
        settings = getattr(experiment.encoders, modality)
        name = getattr(settings, "model", None) or "built small from the config"
        told.append(f"{modality} ({name}, {getattr(settings, 'adaptation', 'full')})")
    return ", ".join(told)
