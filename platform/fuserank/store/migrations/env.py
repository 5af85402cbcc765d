"""Run by Alembic, never imported: applies migrations on the connection that `store.migrate` hands over."""

from alembic import context

from fuserank.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, transactional_ddl=False)
context.run_migrations()
