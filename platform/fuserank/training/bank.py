"""Encoder outputs of many products, kept from when they were last encoded: further candidates at no encoder's cost.

Cross-batch memory (Wang et al. 2020, https://arxiv.org/abs/1912.06798), taken one step earlier: what is kept is the
encoder's output and not the final vector, so projections, gates and fusion learn from every row of the bank at every
step, and only the encoders are limited to the batch.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fuserank.models.fused import FusedModel
from fuserank.training.data import RankingData, Side
from fuserank.training.encode import encode_chunks
from fuserank.training.group import ALONE, Group


class Bank:
    """K training products, drawn and encoded anew for every epoch."""

    def __init__(
        self,
        model: FusedModel,
        data: RankingData,
        size: int,
        device: torch.device,
        draw: tuple[int, ...],
        group: Group = ALONE,
        kept: Mapping[str, Any] | None = None,
    ):
        """
        Args:
            size: K, or every training product where they are fewer.
            draw: what the choice of products follows from (seed, epoch).
            group: the workers that share the encoding; each holds the whole bank.
            kept: the `hidden` of an interrupted epoch, in place of encoding.
        """
        rows = data.product_rows
        self.rows = np.sort(np.random.default_rng(draw).choice(rows, min(size, len(rows)), replace=False))
        self.device, self.modalities = device, data.modalities
        self.mask = data.products.mask[self.rows][:, data.columns]
        self.hidden: dict[str, Tensor] = {}  # modality → [K, H]
        if kept is not None:
            self.hidden = {modality: values.to(device) for modality, values in kept.items()}
            return
        for chunk, side, hidden in encode_chunks(
            model, data.products, self.rows, data.modalities, data.columns, device, group=group
        ):
            self.update(chunk, side, hidden)

    @torch.no_grad()
    def update(self, rows: np.ndarray, side: Side, hidden: Mapping[str, Tensor]) -> None:
        """Keep fresh encoder outputs of a batch's products, where the bank has them.

        Args:
            rows: [P] product rows; side: their side of the batch; hidden: modality → [rows with it, H].
        """
        place = np.searchsorted(self.rows, rows).clip(max=len(self.rows) - 1)
        known = torch.from_numpy(self.rows[place] == rows).to(self.device)
        target = torch.from_numpy(place).to(self.device)
        for modality, values in hidden.items():
            if modality not in self.hidden:
                self.hidden[modality] = torch.zeros(len(self.rows), values.shape[1], device=self.device)
            places = side.inputs[modality][0]
            here = known[places]
            self.hidden[modality][target[places][here]] = values.detach().float()[here]

    def beside(self, rows: np.ndarray) -> tuple[np.ndarray, Side]:
        """The bank's products that are not among `rows`: their product rows, and their inputs."""
        kept = np.flatnonzero(~np.isin(self.rows, rows))
        mask, inputs = self.mask[kept], {}
        for column, modality in enumerate(self.modalities):
            have = np.flatnonzero(mask[:, column])
            if len(have):
                chosen = torch.from_numpy(kept[have]).to(self.device)
                inputs[modality] = (torch.from_numpy(have), {"hidden": self.hidden[modality][chosen]})
        return self.rows[kept], Side(torch.from_numpy(mask), inputs).to(self.device)
