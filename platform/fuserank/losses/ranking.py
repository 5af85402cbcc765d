"""Graded ranking loss in both directions of a query × product score matrix.

For each grade level t the products of grade ≥ t are positives and those below t negatives; a positive competes with the
negatives only, never with another positive (so equals are not pushed apart):

    L_t = mean over positives p of  −log( e^{s_p/τ} / (e^{s_p/τ} + Σ_{n: g_n < t} e^{s_n/τ}) )

averaged over the levels present, so that the finest level, whose gain is largest, does not outweigh the coarse ones.
Per level this is the multi-positive contrastive loss of Khosla et al. 2020
(https://arxiv.org/abs/2004.11362, L_out) with positives left out of the denominator as in van den Oord et al. 2018
(https://arxiv.org/abs/1807.03748).

Judgments are never complete: what nobody judged and yet scores like a known answer may well be one. With a margin such
pairs are set aside (positive-aware false-negative masking, TopK-MarginPos of Moreira et al. 2024,
https://arxiv.org/abs/2407.15831).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def ranking_loss(
    scores: Tensor, grades: Tensor, valid: Tensor | None = None, margin: Tensor | float | None = None
) -> Tensor:
    """Queries rank products and products rank queries; the mean of the two.

    Args:
        scores: [Q, P], already divided by the temperature.
        grades: [Q, P] ≥ 0.
        valid: [Q, P] bool; pairs to leave out altogether (a missing modality) are False.
        margin: pairs of grade 0 that score above the best positive of their query less this (in units of `scores`) are
            left out; None leaves none out.

    Returns:
        A scalar; 0 if no query has both a positive and a negative.
    """
    keep = torch.ones_like(grades, dtype=torch.bool) if valid is None else valid
    if margin is not None:
        keep = keep & ~_likely(scores.detach(), grades, keep, margin)
    return (_directed(scores, grades, keep) + _directed(scores.T, grades.T, keep.T)) / 2


def _likely(scores: Tensor, grades: Tensor, valid: Tensor, margin: Tensor | float) -> Tensor:
    """[Q, P] bool: unjudged pairs that score like an answer; none of a query without one."""
    if not scores.numel():
        return torch.zeros_like(valid)
    answers = valid & (grades > 0)
    best = scores.masked_fill(~answers, float("-inf")).amax(1, keepdim=True)
    return (grades == 0) & (scores > best - margin) & answers.any(1, keepdim=True)


def _directed(scores: Tensor, grades: Tensor, valid: Tensor) -> Tensor:
    """Rows rank columns. Levels share one exponential of the matrix, and each looks at its positives alone."""
    if not scores.numel():
        return scores.sum() * 0
    scores = scores.float().masked_fill(~valid, float("-inf"))
    total, count = torch.where(valid, scores, 0).sum() * 0, 0  # a zero that has a gradient
    top = scores.detach().amax(1, keepdim=True).clamp(min=-1e30)  # a row may have nothing valid
    shares = (scores - top).exp()
    row, column = (valid & (grades > 0)).nonzero(as_tuple=True)
    grade, score = grades[row, column], scores[row, column]
    for level in torch.unique(grade).tolist():
        lower = valid & (grades < level)
        against = torch.where(lower, shares, 0).sum(1).clamp(min=torch.finfo(torch.float32).tiny).log() + top[:, 0]
        chosen = (grade >= level) & lower.any(1)[row]
        if not chosen.any():
            continue
        where = row[chosen]
        each = F.softplus(against[where] - score[chosen])  # −log σ(s_p − log Σ e^{s_n})
        positives = torch.bincount(where, minlength=len(scores))
        total = total + (each / positives[where]).sum() / (positives > 0).sum()
        count += 1
    return total / max(count, 1)
