"""Vectors, words, filters and the pipeline that joins them, offline and online alike."""
