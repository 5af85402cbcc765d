"""One generation, asked as serving asks it, in this process: its model, retriever and reranker over its folder.

Reads the generation's folder, without the live changes since.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fuserank.retrieval.pipeline import SearchRequest
from fuserank.retrieval.rerank_inputs import RerankInputs


class Searching:
    """Asked by text."""

    def __init__(self, folder: Path, candidates: int):
        """
        Args:
            folder: the generation's. candidates: that vectors and words find for a query, each.

        Raises:
            StageError, ModelError: a part of it cannot be loaded.
        """
        from fuserank.features.featurizer import Featurizer
        from fuserank.feedback.behaviour import Behaviour
        from fuserank.models.checkpoint import load_model, load_reranker
        from fuserank.retrieval.generation import open_generation
        from fuserank.retrieval.hybrid import Hybrid
        from fuserank.retrieval.pipeline import Retriever

        opened = open_generation(folder)
        self.id, self.catalogue, self._candidates = opened.id, opened.catalogue, candidates
        self.retriever = Retriever(opened.catalogue, Hybrid.of(opened.manifest))
        self._model = load_model(opened.model_folder, ("text",)).eval()
        self.reranker = load_reranker(opened.model_folder, self._model.modalities)
        self._behaviour = Behaviour.load(opened.model_folder)
        self._featurizer = Featurizer.load(opened.featurizer_folder)

    def request(self, text: str) -> SearchRequest:
        """What the retriever is asked."""
        import torch

        from fuserank.features.batch import collate

        model = self._model
        vectors, mask = torch.zeros(1, len(model.modalities), model.width), torch.zeros(1, len(model.modalities))
        column = model.modalities.index("text")
        with torch.inference_mode():
            inputs = collate("text", self._featurizer.text([text]), pad_id=self._featurizer.settings.pad_id)
            vectors[:, column], mask[:, column] = model.encode("text", inputs), 1
            fused, heads = (part[0].numpy() for part in model.search_vectors(vectors, mask.bool()))
        return SearchRequest(text, fused, heads, candidates=self._candidates)

    def search(self, text: str, depth: int) -> list[str]:
        """Product ids, best first, of which the first `depth` found are reranked."""
        from fuserank.retrieval.rerank_inputs import placed, rerank, rerank_inputs

        request = self.request(text)
        found = self.retriever.search([request])[0]
        assert request.q_heads is not None
        seen = rerank_inputs(found.first(depth), request.q_heads, self.catalogue, self._behaviour, [])
        scores = placed(found.score, rerank(self.reranker, seen))
        return [self.catalogue.ids[row] for row in found.rows[np.argsort(-scores, kind="stable")]]

    def seen(self, request: SearchRequest, rows: np.ndarray, recent: Sequence[int]) -> RerankInputs:
        """What the reranker reads of these products beside all that the request finds, in the order given.

        Args:
            rows: int64 [K], each once. recent: rows of the user's turns, oldest first.
        """
        from fuserank.retrieval.rerank_inputs import rerank_inputs, take

        scored = self.retriever.score(request, np.union1d(self.retriever.search([request])[0].rows, rows))
        assert request.q_heads is not None
        inputs = rerank_inputs(scored, request.q_heads, self.catalogue, self._behaviour, recent)
        places = {row: place for place, row in enumerate(scored.rows.tolist())}
        return take(inputs, np.array([places[row] for row in rows.tolist()]))
