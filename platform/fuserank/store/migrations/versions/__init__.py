"""One file a schema change, in order; `store.migrate` applies them when a database is opened."""
