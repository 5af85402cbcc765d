"""Self-supervised start of the encoders, what the Ray Train worker of `pretrain` runs: masked language for text, two-view
contrast for pictures. Each encoder's weights end as `<modality>.safetensors`.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuserank import config
from fuserank.features.featurizer import Featurizer
from fuserank.features.table import FeatureTable
from fuserank.losses.contrast import two_view_loss
from fuserank.losses.masked_language import mask_tokens, masked_language_loss
from fuserank.models.checkpoint import save_weights
from fuserank.models.encoders.image import ImageEncoder
from fuserank.models.encoders.text import MaskedLanguageHead, TextEncoder
from fuserank.training.augment import views
from fuserank.training.loop import make_fit, run_epoch
from fuserank.training.state import load_state, save_state
from fuserank.training.supervised import new_model
from fuserank.training.tracking import Tracker


class MaskedLanguage(nn.Module):
    """Text encoder + output head → masked language loss."""

    def __init__(self, encoder: TextEncoder, mask_id: int, vocabulary: int):
        super().__init__()
        self.encoder, self.mask_id, self.vocabulary = encoder, mask_id, vocabulary
        self.head = MaskedLanguageHead(encoder.width, encoder.backbone.get_input_embeddings().weight.shape[0])

    def forward(self, input_ids: Tensor, attention_mask: Tensor, special: Tensor, seed: int) -> dict[str, Tensor]:
        corrupted, chosen = mask_tokens(
            input_ids, special, self.mask_id, self.vocabulary, torch.Generator().manual_seed(seed)
        )
        hidden = self.encoder.backbone(input_ids=corrupted, attention_mask=attention_mask).last_hidden_state
        logits = self.head(hidden[chosen], self.encoder.backbone.get_input_embeddings().weight)
        return {"masked_language": masked_language_loss(logits, input_ids[chosen])}


class TwoViews(nn.Module):
    """Image encoder + projection → contrast of two views (SimCLR)."""

    def __init__(self, encoder: ImageEncoder, temperature: float = 0.2, width: int = 128):
        super().__init__()
        self.encoder, self.temperature = encoder, temperature
        self.projection = nn.Sequential(nn.Linear(encoder.width, encoder.width), nn.ReLU(), nn.Linear(encoder.width, width))

    def forward(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        both = self.projection(self.encoder(torch.cat([first, second])))
        one, two = F.normalize(both.float(), dim=-1).chunk(2)
        return {"two_views": two_view_loss(one, two, self.temperature)}


def text_batches(
    tables: list[tuple[FeatureTable, np.ndarray]], epoch: int, seed: int, size: int, special: list[int]
) -> Iterator[tuple]:
    """Shuffled batches over the texts of several tables (products and queries)."""
    random = np.random.default_rng((seed, epoch, 1))
    ids = torch.tensor(special)
    pool = [(which, row) for which, (_, rows) in enumerate(tables) for row in rows]
    order = random.permutation(len(pool))
    for step, start in enumerate(range(0, max(1, len(order) - size + 1), size)):
        chosen = [pool[i] for i in order[start : start + size]]
        for which, (table, _) in enumerate(tables):
            rows = np.array([row for w, row in chosen if w == which], np.int64)
            if len(rows):
                batch = table.batch(rows, "text")
                stop = torch.isin(batch["input_ids"], ids)
                yield batch["input_ids"], batch["attention_mask"], stop, seed * 7919 + epoch * 104729 + step


def image_batches(table: FeatureTable, rows: np.ndarray, epoch: int, seed: int, size: int) -> Iterator[tuple]:
    """Shuffled batches of two strong views each."""
    order = np.random.default_rng((seed, epoch, 2)).permutation(rows)
    generator = torch.Generator().manual_seed(seed * 7919 + epoch)
    for start in range(0, max(1, len(order) - size + 1), size):
        pixels = table.batch(order[start : start + size], "image")["pixels"]
        yield views(pixels, generator, 0.5, 0.4), views(pixels, generator, 0.5, 0.4)


def training_rows(preprocess: Path, name: str, table: FeatureTable, modality: str) -> np.ndarray:
    """Rows of the training split (all rows where the split is not by this table) that have the modality."""
    file = preprocess / f"{name}.parquet"
    split = np.array(pq.read_table(file, columns=["split"])["split"].to_pylist(), object) if file.is_file() else None
    allowed = np.ones(len(table.ids), bool)
    if split is not None and any(value is not None for value in split):
        allowed = split == "training"
    return np.flatnonzero(allowed & table.has(modality))


def pretrain_worker(values: dict[str, Any]) -> None:
    """Pre-train every encoder that the config asks for, one after the other.

    Args:
        values: `experiment` (dict), and the folders `preprocess` and `out`.
    """
    import ray.train
    from ray.train import Checkpoint

    experiment = config.validate(values["experiment"])
    preprocess, out = Path(values["preprocess"]), Path(values["out"])
    torch.manual_seed(experiment.seed)
    device = ray.train.torch.get_device()
    settings = Featurizer.load(preprocess).settings
    model = new_model(experiment, preprocess, None).to(device)
    products = FeatureTable.open(preprocess / "features.parquet")
    done: dict[str, Any] = {"losses": {}, "task": "", "finished": []}
    tracker = Tracker(out, "pretrain", experiment.tracking.tensorboard)
    tasks = {"text": experiment.pretrain.text, "image": experiment.pretrain.image}
    for modality, task in tasks.items():
        if modality not in model.modalities or task.epochs == 0:
            continue
        rows = training_rows(preprocess, "products", products, modality)
        if not len(rows):
            continue
        encoder = model.encoders[modality]
        if isinstance(encoder, TextEncoder):
            if settings.mask_id is None:
                continue  # a tokenizer without [MASK] belongs to a model that was not trained by masking
            module: nn.Module = MaskedLanguage(encoder, settings.mask_id, settings.vocabulary)
            queries = FeatureTable.open(preprocess / "query_features.parquet")
            tables = [(products, rows), (queries, training_rows(preprocess, "queries", queries, "text"))]
            first = products.batch(rows[:64], "text")["input_ids"]
            special = sorted({settings.pad_id, *first[:, 0].tolist(), *_last_tokens(first, settings.pad_id)})
            steps = sum(len(r) for _, r in tables) // task.batch_size + 2
        else:
            assert isinstance(encoder, ImageEncoder)
            module = TwoViews(encoder)
            steps = max(1, len(rows) // task.batch_size)
        module = module.to(device)
        fit = make_fit(module, [{"params": list(module.parameters()), "lr": task.learning_rate}], steps * task.epochs, 0.1, 0.01)
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                names = [f.name for f in Path(folder).iterdir()]
                if f"{modality}.safetensors" in names:
                    continue
                if modality in names:
                    load_state(fit, Path(folder) / modality)
        saved = time.monotonic()
        while fit.epoch < task.epochs:
            if isinstance(encoder, TextEncoder):
                batches = text_batches(tables, fit.epoch, experiment.seed, task.batch_size, special)
            else:
                batches = image_batches(products, rows, fit.epoch, experiment.seed, task.batch_size)
            moved = (tuple(a.to(device) if isinstance(a, Tensor) else a for a in arguments) for arguments in batches)
            losses = run_epoch(fit, moved, {"masked_language": 1.0, "two_views": 1.0}, device, experiment.train.precision)
            tracker.log(fit.epoch, task.epochs, {f"{modality}_loss": losses["loss"]})
            done["losses"].setdefault(modality, []).append(round(losses["loss"], 4))
            last = fit.epoch == task.epochs
            if not last and time.monotonic() - saved < 30:
                continue
            saved = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                for finished in done["finished"]:
                    save_weights(model.encoders[finished], Path(folder) / f"{finished}.safetensors")
                if last:
                    done["finished"].append(modality)
                    save_weights(encoder, Path(folder) / f"{modality}.safetensors")
                else:
                    save_state(fit, Path(folder) / modality, {})
                ray.train.report({"losses": done["losses"]}, checkpoint=Checkpoint.from_directory(folder))
    tracker.close()


def _last_tokens(ids: Tensor, pad_id: int) -> list[int]:
    lengths = (ids != pad_id).sum(1) - 1
    return ids[torch.arange(len(ids)), lengths].unique().tolist()
