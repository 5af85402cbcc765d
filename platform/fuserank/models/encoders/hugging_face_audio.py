"""M_A by a Hugging Face model: what its feature extractor made of a sound → one vector.

wav2vec 2.0: Baevski et al. 2020, https://arxiv.org/abs/2006.11477. Whisper: Radford et al. 2022,
https://arxiv.org/abs/2212.04356; of it only the encoder is kept. AST: Gong et al. 2021, https://arxiv.org/abs/2104.01778.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fuserank.models.encoders.hugging_face import build_backbone, fetch_backbone

# Parts that draw from the process's random state, which no other worker and no restart would repeat.
QUIET = {"apply_spec_augment": False, "layerdrop": 0.0, "encoder_layerdrop": 0.0}


class HuggingFaceAudioEncoder(nn.Module):
    """[B, …] features, [B] lengths in samples → [B, H]: the model's own summary, or the mean over the sound's steps."""

    unused = ("masked_spec_embed",)  # parts of the backbone that no answer depends on

    def __init__(self, architecture: dict[str, Any], span: int, masked: bool, pretrained: str | None = None):
        """
        Args:
            architecture: a Hugging Face config as a dict; ignored for building where `pretrained` is given.
            span: samples that the features stand for, padding included.
            masked: whether the model is told which part is padding.
            pretrained: a hub name or a folder to load weights from.

        Raises:
            ModelError: the model cannot be loaded, or its config has no such architecture.
        """
        super().__init__()
        whole, self.architecture = build_backbone(architecture) if pretrained is None else fetch_backbone(pretrained)
        for name in QUIET.keys() & self.architecture.keys():
            setattr(whole.config, name, QUIET[name])
            self.architecture[name] = QUIET[name]
        for module in whole.modules():
            if hasattr(module, "layerdrop"):
                module.layerdrop = 0.0
        self.backbone = whole.get_encoder() if whole.config.is_encoder_decoder else whole
        self.width: int = whole.config.hidden_size
        self.span, self.masked = span, masked

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        told = {"attention_mask": self._within(lengths, values.shape[1]).long()} if self.masked else {}
        out = self.backbone(values, **told)
        if (pooled := getattr(out, "pooler_output", None)) is not None:
            return pooled
        hidden = out.last_hidden_state  # [B, T, H]
        steps = hidden.shape[1]
        if values.dim() == 2 and hasattr(self.backbone, "_get_feat_extract_output_lengths"):
            ends = self.backbone._get_feat_extract_output_lengths(lengths).clamp(1, steps)
            kept = torch.arange(steps, device=values.device) < ends[:, None]
        else:
            kept = self._within(lengths, steps)
        kept = kept.unsqueeze(-1).to(hidden.dtype)
        return (hidden * kept).sum(1) / kept.sum(1)

    def _within(self, lengths: Tensor, steps: int) -> Tensor:
        """bool [B, steps]: which of equal steps over the span the sound reaches into, one at least."""
        ends = (lengths * steps + self.span - 1) // self.span
        return torch.arange(steps, device=lengths.device) < ends.clamp(min=1)[:, None]
