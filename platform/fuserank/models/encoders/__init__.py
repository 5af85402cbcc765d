"""One file a modality: raw inputs to a vector."""
