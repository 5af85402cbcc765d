"""Retriever: query vectors, words, users' histories or a product → candidates. Reads the generations' folders.

It holds the model's fusion and recommender as well as the catalogue, so that a query's modality vectors become its
fused vector here, without a further hop.

Legend: B requests, K candidates, M modalities, D width of a modality vector, E width of a fused vector.
"""

import dataclasses
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fuserank.config import Online, Rules
from fuserank.errors import FuserankError
from fuserank.features.featurizer import Featurizer
from fuserank.feedback.behaviour import Behaviour
from fuserank.feedback.history import turns
from fuserank.feedback.neighbours import Neighbours
from fuserank.retrieval.blend import Blend
from fuserank.retrieval.generation import open_generation
from fuserank.retrieval.hybrid import Hybrid
from fuserank.retrieval.pipeline import Candidates, Retriever, SearchRequest
from fuserank.store.database import Database
from serve.given import scored
from serve.live import Live
from serve.messages import QUERIES, Details, Found, RetrieverQuery
from serve.refinement import arranged, overview, searches
from serve.related import Related
from serve.worker import Worker, one_thread

if TYPE_CHECKING:
    import torch


class Searcher:
    """One generation, with the live changes of its catalogue."""

    def __init__(
        self,
        folder: Path,
        candidates: int,
        depth: int,
        facet_depth: int,
        database: Database | None,
        thread: Executor,
        compact_after: int,
        online: Online | None = None,
        rules: Rules = Rules(),
    ):
        """
        Args:
            folder: the generation's.
            candidates: how many vector search and word search each hand over; depth: how many the reranker looks at;
                facet_depth: how many each search finds for what is counted, sorted or grouped.
            database: whose change log to follow; None for a catalogue that nobody changes.
            thread: the one thread that searches.
            compact_after: changes beside the generation before they are made into a new base.
            online: of the policy that draws from the candidates; None: there is none.
            rules: of the shop, for recommendations.

        Raises:
            StageError, ModelError: a part of the generation cannot be loaded. StoreError: the database failed.
        """
        from fuserank.models.checkpoint import load_model

        opened = open_generation(folder)
        self.live = Live(
            opened.catalogue,
            opened.id,
            opened.manifest["base_seq"],
            database,
            Featurizer.load(opened.featurizer_folder).product_words,
            thread,
            compact_after,
        )
        self._catalogue = self.live.catalogue
        self._retriever = Retriever(self._catalogue, Hybrid.of(opened.manifest))
        self._model = load_model(opened.model_folder, ())  # the encoder deployments run the encoders
        self._candidates, self._depth, self._whole = candidates, depth, max(candidates, facet_depth)
        self._behaviour = Behaviour.load(opened.model_folder)
        neighbours = Neighbours.load(opened.model_folder, opened.catalogue.size)
        self._related = Related(
            self.live,
            self._retriever,
            self._model,
            self._behaviour,
            neighbours,
            Blend.of(opened.manifest),
            online,
            rules,
        )
        self._attends = bool(opened.manifest.get("reranker", {}).get("attends"))

    def answer(self, payloads: list[RetrieverQuery]) -> list[Found | Exception]:
        """One vector search and one word search for the whole batch, whatever its requests are."""
        found: dict[int, Found | Exception] = {}
        asking = [i for i, query in enumerate(payloads) if query.ask.kind in QUERIES]
        found.update(zip(asking, self._search([payloads[i] for i in asking]), strict=True))
        others = [i for i in range(len(payloads)) if i not in found]
        found.update(zip(others, self._related.answer([payloads[i] for i in others]), strict=True))
        return [_at(found[i], self._catalogue.seq) for i in range(len(payloads))]

    def _search(self, queries: list[RetrieverQuery]) -> list[Found | Exception]:
        import torch

        if not queries:
            return []
        model, modalities = self._model, self._model.modalities
        vectors = torch.zeros(len(queries), len(modalities), model.width)
        mask = torch.zeros(len(queries), len(modalities), dtype=torch.bool)
        weights = torch.ones(len(queries), len(modalities))
        for b, query in enumerate(queries):
            for modality, vector in query.vectors.items():
                m = modalities.index(modality)
                vectors[b, m] = torch.from_numpy(vector)
                mask[b, m] = True
                weights[b, m] = query.ask.weights.get(modality, 1.0)
        with torch.inference_mode():
            fused, heads = model.search_vectors(vectors, mask, weights)
        requests = [
            SearchRequest(
                text=query.text if query.ask.weights.get("text", 1.0) > 0 else None,
                query_vector=fused[b].numpy() if query.vectors else None,
                q_heads=heads[b].numpy() if query.vectors else None,
                filter=query.ask.filter,
                candidates=max(self._candidates, query.ask.depth),
                exclude=self._related.rows(query.ask.exclude),
            )
            for b, query in enumerate(queries)
        ]
        plans = [
            searches(query.ask, request, self._whole) if query.ask.kind == "search" else []
            for query, request in zip(queries, requests, strict=True)
        ]
        found = iter(self._retriever.search([request for plan in plans for request in plan]))
        answers: list[Found | Exception] = []
        for b, (query, plan) in enumerate(zip(queries, plans, strict=True)):
            if not plan:
                answers.append(self._score(query, requests[b], heads[b].numpy()))
                continue
            first, *freed = [next(found) for _ in plan]
            try:
                answers.append(self._answer(query, plan[0], first, freed, (vectors[b], mask[b], weights[b], heads[b])))
            except FuserankError as error:  # this request's; its neighbours are not touched
                answers.append(error)
        return answers

    def _answer(
        self,
        query: RetrieverQuery,
        request: SearchRequest,
        found: Candidates,
        freed: list[Candidates],
        encoded: "tuple[torch.Tensor, ...]",
    ) -> Found:
        """One search's answer. `encoded`: the query's vectors [M, D], mask [M], weights [M] and heads [M, D]."""
        import torch

        from fuserank.retrieval.rerank_inputs import rerank_inputs

        if found.error is not None:
            raise found.error
        ask, catalogue = query.ask, self._catalogue
        whole = overview(ask, request, found, freed, self._retriever)
        found, groups = arranged(ask, found, self._retriever)
        vectors, mask, weights, heads = encoded
        features = None
        if ask.rerank and not ask.sort:
            recent = [row for row, _, _ in turns(self._related.events(query))]
            seen = rerank_inputs(found.first(self._depth), heads.numpy(), catalogue, self._behaviour, recent)
            features = seen if self._attends else seen.features  # vectors travel only to who reads them
        details = None
        if ask.explain:
            shares = np.zeros(found.mask.shape, np.float32)
            if query.vectors:
                with torch.inference_mode():
                    products = torch.from_numpy(catalogue.modality_vectors[found.rows].astype(np.float32))
                    present = torch.from_numpy(catalogue.mask[found.rows])
                    shares = self._model.contributions(vectors, mask, products, present, weights).numpy()
            details = Details(found.fused, found.lexical, np.where(found.mask, found.modalities, np.nan), shares)
        text = catalogue.lexical_index.corrected(request.text) if request.text else request.text
        return Found(
            found.rows,
            found.score,
            features,
            "search",
            self._model.modalities,
            details,
            corrected=None if text == request.text else text,
            overview=whole,
            ordered=bool(ask.sort),
            groups=groups,
        )

    def _score(self, query: RetrieverQuery, request: SearchRequest, heads: np.ndarray) -> Found:
        """For those who want no search: the query's vector, or the scores of the products that they give."""
        modalities = self._model.modalities
        if query.ask.kind == "embed":
            nothing = np.zeros(0, np.int64)
            return Found(nothing, nothing.astype(np.float32), None, "embed", modalities, vector=request.query_vector)
        recent = [row for row, _, _ in turns(self._related.events(query))]
        places, found, seen = scored(query.ask, request, heads, recent, self._retriever, self._behaviour)
        features = (seen if self._attends else seen.features) if seen is not None else None
        return Found(places, found.score, features, "rank", modalities)


class RetrieverDeployment(Worker[Searcher]):
    """Payload: RetrieverQuery. Value: Found, or FilterError for a malformed filter."""

    def __init__(
        self,
        generation: Path,
        candidates: int,
        url: str | None = None,
        compact_after: int = 5000,
        depth: int = 200,
        facet_depth: int = 1000,
        online: Online | None = None,
        rules: Rules = Rules(),
    ):
        """As Searcher and Worker."""
        one_thread()
        self._options = (candidates, depth, facet_depth, Database(url) if url else None)
        self._compact_after, self._online, self._rules = compact_after, online, rules
        super().__init__("retriever", generation, url)

    def open(self, folder: Path) -> Searcher:
        """Open a generation and catch up with the changes that have vectors. Raises StageError, ModelError."""
        return Searcher(folder, *self._options, self._thread, self._compact_after, self._online, self._rules)

    def work(self, part: Searcher, payloads: list[RetrieverQuery]) -> list[Found | Exception]:
        """One vector search and one word search for the whole batch."""
        return part.answer(payloads)

    def ready(self, part: Searcher) -> bool:
        """Whether it has caught up with the change log."""
        return part.live.follower is None or part.live.follower.caught_up()

    def close(self, part: Searcher) -> None:
        """Stop following the log."""
        part.live.close()


def _at(found: Found | Exception, seq: int) -> Found | Exception:
    return dataclasses.replace(found, seq=seq) if isinstance(found, Found) else found
