"""The one database: events, impressions, the change log of the catalogue, generations."""
