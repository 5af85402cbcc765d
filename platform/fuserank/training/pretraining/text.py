"""Masked language over the training products' and queries' texts; of a loaded model it is domain pre-training."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fuserank.features.table import FeatureTable
from fuserank.losses.masked_language import mask_tokens, masked_language_loss
from fuserank.models.encoders.text import MaskedLanguageHead, TextEncoder
from fuserank.training.augment import TOKENS
from fuserank.training.dropout import SeededDropout
from fuserank.training.group import ALONE, Group
from fuserank.training.noise import uniform
from fuserank.training.pretraining.task import noise, own, training_rows


class MaskedLanguage(nn.Module):
    """Text encoder and output head: masked language loss."""

    def __init__(self, encoder: TextEncoder, mask_id: int, vocabulary: int, group: Group = ALONE):
        super().__init__()
        self.encoder, self.mask_id, self.vocabulary, self.group = encoder, mask_id, vocabulary, group
        embeddings = encoder.backbone.get_input_embeddings().weight
        self.head = MaskedLanguageHead(encoder.width, len(embeddings), embeddings.shape[1])

    def forward(self, input_ids: Tensor, attention_mask: Tensor, special: Tensor, keys: Tensor) -> dict[str, Tensor]:
        """[B, T] ids, mask and special positions; [B] keys that decide which tokens are masked."""
        draws = uniform(keys, TOKENS, 3 * input_ids[0].numel()).view(len(keys), 3, -1).transpose(0, 1)
        corrupted, chosen = mask_tokens(input_ids, special, self.mask_id, self.vocabulary, draws)
        mine = own(self.group, len(keys)).to(keys.device)
        with SeededDropout(keys[mine]):
            hidden = self.encoder.backbone(input_ids=corrupted[mine], attention_mask=attention_mask[mine])
        told = hidden.last_hidden_state[chosen[mine]]
        logits = self.head(told, self.encoder.backbone.get_input_embeddings().weight)
        share = self.group.world / max(1, int(chosen.sum()))  # workers' losses are averaged, tokens count alike
        return {"masked_language": masked_language_loss(logits, input_ids[mine][chosen[mine]], 1) * share}


class TextTask:
    """Batches of texts."""

    loss = "masked_language"

    def __init__(
        self,
        encoder: TextEncoder,
        preprocess: Path,
        products: FeatureTable,
        mask_id: int,
        vocabulary: int,
        group: Group = ALONE,
    ):
        queries = FeatureTable.open(preprocess / "query_features.parquet")
        pairs = ((products, "products"), (queries, "queries"))
        self.tables = [(table, training_rows(preprocess, name, table, "text")) for table, name in pairs]
        self.module: nn.Module = MaskedLanguage(encoder, mask_id, vocabulary, group)
        self.parts: Mapping[str, nn.Module] = {"text": encoder}
        self.count = sum(len(rows) for _, rows in self.tables)
        self.special = torch.tensor(sorted(_frame_tokens(self.tables)))

    def batches(self, epoch: int, seed: int, size: int, start: int = 0) -> Iterator[tuple]:
        random = np.random.default_rng((seed, epoch, 1))
        pieces = []
        for which, (_, rows) in enumerate(self.tables):
            order = random.permutation(rows)
            pieces += [(which, order[begin : begin + size]) for begin in range(0, len(order), size)]
        for step, place in enumerate(random.permutation(len(pieces))):
            if step >= start:
                which, rows = pieces[place]
                batch = self.tables[which][0].batch(rows, "text")
                ids, seen = batch["input_ids"], batch["attention_mask"]
                yield ids, seen, torch.isin(ids, self.special), noise(rows, seed, epoch, step)

    def steps(self, size: int) -> int:
        return sum(-(-len(rows) // size) for _, rows in self.tables)


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
