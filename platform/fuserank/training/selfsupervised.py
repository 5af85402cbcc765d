"""Self-supervised start of the encoders: masked language for text, two-view contrast for pictures.

`pretrain_worker` is what the Ray Train worker of `pretrain` runs; each encoder's weights end as
`<modality>.safetensors` in the last checkpoint.
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
from fuserank.models.checkpoint import load_weights, save_weights
from fuserank.models.encoders.image import ImageEncoder
from fuserank.models.encoders.text import MaskedLanguageHead, TextEncoder
from fuserank.models.fused import FusedModel
from fuserank.training.augment import views
from fuserank.training.loop import make_fit, run_epoch
from fuserank.training.state import load_state, save_state
from fuserank.training.supervised import new_model
from fuserank.training.tracking import Tracker

CHECKPOINT_EVERY = 30.0  # seconds
WEIGHTS = {"masked_language": 1.0, "two_views": 1.0}


class MaskedLanguage(nn.Module):
    """Text encoder and output head: masked language loss."""

    def __init__(self, encoder: TextEncoder, mask_id: int, vocabulary: int):
        super().__init__()
        self.encoder, self.mask_id, self.vocabulary = encoder, mask_id, vocabulary
        self.head = MaskedLanguageHead(encoder.width, encoder.backbone.get_input_embeddings().weight.shape[0])

    def forward(self, input_ids: Tensor, attention_mask: Tensor, special: Tensor, seed: int) -> dict[str, Tensor]:
        """[B, T] ids, mask and special positions; the seed decides which tokens are masked."""
        generator = torch.Generator().manual_seed(seed)
        corrupted, chosen = mask_tokens(input_ids, special, self.mask_id, self.vocabulary, generator)
        hidden = self.encoder.backbone(input_ids=corrupted, attention_mask=attention_mask).last_hidden_state
        logits = self.head(hidden[chosen], self.encoder.backbone.get_input_embeddings().weight)
        return {"masked_language": masked_language_loss(logits, input_ids[chosen])}


class TwoViews(nn.Module):
    """Image encoder and projection: contrast of two views (SimCLR)."""

    def __init__(self, encoder: ImageEncoder, temperature: float = 0.2, width: int = 128):
        super().__init__()
        self.encoder, self.temperature = encoder, temperature
        self.projection = nn.Sequential(
            nn.Linear(encoder.width, encoder.width), nn.ReLU(), nn.Linear(encoder.width, width)
        )

    def forward(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        """[B, 3, H, W] twice."""
        both = self.projection(self.encoder(torch.cat([first, second])))
        one, two = F.normalize(both.float(), dim=-1).chunk(2)
        return {"two_views": two_view_loss(one, two, self.temperature)}


class TextTask:
    """Masked language over the training products' and queries' texts."""

    def __init__(self, encoder: TextEncoder, preprocess: Path, products: FeatureTable, mask_id: int, vocabulary: int):
        queries = FeatureTable.open(preprocess / "query_features.parquet")
        pairs = ((products, "products"), (queries, "queries"))
        self.tables = [(table, training_rows(preprocess, name, table, "text")) for table, name in pairs]
        self.module: nn.Module = MaskedLanguage(encoder, mask_id, vocabulary)
        self.count = sum(len(rows) for _, rows in self.tables)
        self.special = torch.tensor(sorted(_frame_tokens(self.tables)))

    def batches(self, epoch: int, seed: int, size: int) -> Iterator[tuple]:
        random = np.random.default_rng((seed, epoch, 1))
        pieces = []
        for which, (_, rows) in enumerate(self.tables):
            order = random.permutation(rows)
            pieces += [(which, order[start : start + size]) for start in range(0, len(order), size)]
        for step, place in enumerate(random.permutation(len(pieces))):
            which, rows = pieces[place]
            batch = self.tables[which][0].batch(rows, "text")
            ids, seen = batch["input_ids"], batch["attention_mask"]
            yield ids, seen, torch.isin(ids, self.special), seed * 7919 + epoch * 104729 + step

    def steps(self, size: int) -> int:
        return sum(-(-len(rows) // size) for _, rows in self.tables)


class ImageTask:
    """Two-view contrast over the training products' pictures."""

    def __init__(self, encoder: ImageEncoder, preprocess: Path, products: FeatureTable):
        self.table, self.rows = products, training_rows(preprocess, "products", products, "image")
        self.module: nn.Module = TwoViews(encoder)
        self.count = len(self.rows)

    def batches(self, epoch: int, seed: int, size: int) -> Iterator[tuple]:
        order = np.random.default_rng((seed, epoch, 2)).permutation(self.rows)
        generator = torch.Generator().manual_seed(seed * 7919 + epoch)
        for start in range(0, max(1, len(order) - size + 1), size):
            pixels = self.table.batch(order[start : start + size], "image")["pixels"]
            yield views(pixels, generator, 0.5, 0.4), views(pixels, generator, 0.5, 0.4)

    def steps(self, size: int) -> int:
        return max(1, self.count // size)


def _frame_tokens(tables: list[tuple[FeatureTable, np.ndarray]]) -> set[int]:
    """Token ids that open, close or pad every text ([CLS], [SEP], [PAD]): never masked."""
    found: set[int] = set()
    for table, rows in tables:
        if len(rows):
            batch = table.batch(rows[:64], "text")
            last = batch["attention_mask"].sum(1) - 1
            ids = batch["input_ids"]
            found |= {table.pad_id, *ids[:, 0].tolist(), *ids[torch.arange(len(ids)), last].tolist()}
    return found


def training_rows(preprocess: Path, name: str, table: FeatureTable, modality: str) -> np.ndarray:
    """Rows of the training split (all rows where the split is not by this table) that have the modality."""
    split = np.array(pq.read_table(preprocess / f"{name}.parquet", columns=["split"])["split"].to_pylist(), object)
    allowed = split == "training" if any(value is not None for value in split) else np.ones(len(table.ids), bool)
    return np.flatnonzero(allowed & table.has(modality))


def make_task(
    modality: str, model: FusedModel, preprocess: Path, products: FeatureTable, settings: Any
) -> TextTask | ImageTask | None:
    """The task of that modality; None where there is nothing to learn from or no way to."""
    if modality not in model.modalities:
        return None
    encoder = model.encoders[modality]
    if isinstance(encoder, ImageEncoder):
        task: TextTask | ImageTask = ImageTask(encoder, preprocess, products)
    elif isinstance(encoder, TextEncoder) and settings.mask_id is not None:
        task = TextTask(encoder, preprocess, products, settings.mask_id, settings.vocabulary)
    else:
        return None  # a tokenizer without [MASK] belongs to a model that was not trained by masking
    return task if task.count else None


def pretrain_worker(values: dict[str, Any]) -> None:
    """Pre-train every encoder that the config asks for, one after the other.

    Args:
        values: `experiment` (dict), and the folders `preprocess` and `out`.
    """
    import ray.train
    from ray.train import Checkpoint
    from ray.train.torch import get_device

    experiment = config.validate(values["experiment"])
    preprocess, device = Path(values["preprocess"]), get_device()
    torch.manual_seed(experiment.seed)
    settings = Featurizer.load(preprocess).settings
    model = new_model(experiment, preprocess, None).to(device)
    products = FeatureTable.open(preprocess / "features")
    tracker = Tracker(Path(values["out"]), "pretrain", experiment.tracking.tensorboard)
    finished: list[str] = []
    losses: dict[str, float] = {}

    def checkpoint(folder: Path) -> None:
        for done in finished:
            save_weights(model.encoders[done], folder / f"{done}.safetensors")
        ray.train.report({"losses": losses}, checkpoint=Checkpoint.from_directory(str(folder)))

    resumed = tempfile.TemporaryDirectory()
    if (last := ray.train.get_checkpoint()) is not None:
        last.to_directory(resumed.name)
    for modality in ("text", "image"):
        options = getattr(experiment.pretrain, modality)
        task = make_task(modality, model, preprocess, products, settings) if options.epochs else None
        if task is None:
            continue
        kept = Path(resumed.name) / f"{modality}.safetensors"
        if kept.is_file():
            load_weights(model.encoders[modality], kept)
            finished.append(modality)
            continue
        module = task.module.to(device)
        steps = task.steps(options.batch_size) * options.epochs
        fit = make_fit(module, [{"params": list(module.parameters()), "lr": options.learning_rate}], steps, 0.1, 0.01)
        if (Path(resumed.name) / modality).is_dir():
            load_state(fit, Path(resumed.name) / modality)
        saved = time.monotonic()
        while fit.epoch < options.epochs:
            batches = task.batches(fit.epoch, experiment.seed, options.batch_size)
            moved = (tuple(a.to(device) if isinstance(a, Tensor) else a for a in arguments) for arguments in batches)
            losses[modality] = run_epoch(fit, moved, WEIGHTS, device, experiment.train.precision)["loss"]
            tracker.log(fit.epoch, options.epochs, {f"{modality}_loss": losses[modality]})
            last_epoch = fit.epoch == options.epochs
            if last_epoch or time.monotonic() - saved > CHECKPOINT_EVERY:
                saved = time.monotonic()
                with tempfile.TemporaryDirectory() as folder:
                    if last_epoch:
                        finished.append(modality)
                    else:
                        save_state(fit, Path(folder) / modality, {})
                    checkpoint(Path(folder))
    if not finished:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint(Path(folder))
    resumed.cleanup()
    tracker.close()
