"""One loop for all objectives, with exact resume."""
