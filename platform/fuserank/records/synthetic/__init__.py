"""The generated shop: seeded products, pictures, speech, queries and behaviour (rules in docs/SHOP.md)."""
