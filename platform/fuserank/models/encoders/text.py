"""M_LM: token ids → one vector, by any Hugging Face text model; without one, a small BERT built from numbers.

BERT: Devlin et al. 2019, https://arxiv.org/abs/1810.04805.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fuserank.models.encoders.hugging_face import build_backbone, fetch_backbone


def small_bert(vocabulary: int, layers: int, hidden: int, heads: int, tokens: int) -> dict[str, Any]:
    """Hugging Face config (as a dict) of a small BERT with `vocabulary` token ids and room for `tokens` positions."""
    return {
        "model_type": "bert",
        "vocab_size": vocabulary,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "max_position_embeddings": max(tokens, 16),
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": 0,
    }


class TextEncoder(nn.Module):
    """[B, T] token ids → [B, H]."""

    unused = ("pooler.",)  # parts of the backbone that no answer depends on

    def __init__(self, architecture: dict[str, Any], pooling: str = "mean", pretrained: str | None = None):
        """
        Args:
            architecture: a Hugging Face config as a dict; ignored for building where `pretrained` is given.
            pooling: "mean" over the tokens that are not padding, or "cls" (the first token).
            pretrained: a hub name or a folder to load weights from.

        Raises:
            ModelError: the model cannot be loaded, or its config has no such architecture.
        """
        super().__init__()
        if pretrained is None:
            self.backbone, self.architecture = build_backbone(architecture)
        else:
            self.backbone, self.architecture = fetch_backbone(pretrained)
        self.pooling = pooling
        self.width: int = self.architecture["hidden_size"]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # [B, T, H]
        if self.pooling == "cls":
            return hidden[:, 0]
        kept = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * kept).sum(1) / kept.sum(1).clamp(min=1)


class MaskedLanguageHead(nn.Module):
    """[B, T, H] → token logits with the input embeddings as output weights (tied, as in BERT)."""

    def __init__(self, hidden: int, vocabulary: int, embedded: int | None = None):
        """embedded: width of the input embeddings where it is not `hidden`."""
        super().__init__()
        width = embedded or hidden
        self.transform = nn.Sequential(nn.Linear(hidden, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, hidden: Tensor, embeddings: Tensor) -> Tensor:
        return self.transform(hidden) @ embeddings.T + self.bias
