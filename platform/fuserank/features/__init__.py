"""Records to tensors, one file a modality."""
