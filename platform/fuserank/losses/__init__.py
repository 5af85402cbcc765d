"""One file an objective, and their weighted sum."""
