"""The search of fusion and loss weights by Ray Tune."""
