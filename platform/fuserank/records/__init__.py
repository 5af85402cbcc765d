"""What a shop brings: schema, sources, the generated shop, quarantine and splits."""
