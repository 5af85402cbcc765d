"""fuserank: multimodal search and recommendation by fusing large models, on Ray."""
