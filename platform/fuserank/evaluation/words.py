"""What systems and metrics are called in tables and plots. Reads and writes nothing."""

LABELS = {
    "bm25": "BM25",
    "late": "late concatenation",
    "text": "text only",
    "image": "image only",
    "audio": "audio only",
    "price": "price only",
    "attributes": "attributes only",
    "fused": "fused (vectors)",
    "hybrid": "hybrid (vectors + words)",
    "served": "served (hybrid + rerank)",
    "retriever": "retriever's order",
    "reranked": "reranked (nobody in particular)",
    "personal": "personalised (reranked for the user)",
    "recommended": "recommended (M_R + neighbours + popularity)",
    "recommender": "M_R",
    "neighbours": "item kNN",
    "popularity": "popularity",
}
TITLES = {"ndcg": "nDCG", "mrr": "MRR", "hr": "HR", "map": "MAP"}


def label(system: str) -> str:
    """What a system is called in tables."""
    return LABELS.get(system, system)


def short(system: str) -> str:
    """The same without its explanation."""
    return label(system).partition(" (")[0]


def title(metric: str) -> str:
    """What a metric is called in tables: `ndcg@10` → nDCG@10."""
    name, at, depth = metric.partition("@")
    return TITLES.get(name, name) + at + depth
