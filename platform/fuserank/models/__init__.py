"""Encoders, fusions, the recommender and the reranker."""
