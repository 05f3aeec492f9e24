"""Truth and files: the SQLite database, the rebuildable indexes, the journal and the file moves.

Nothing in here knows what a picture or a cluster is made of; nothing in here imports `daemon` or
`cli`. The package itself imports nothing, so that the fast read-only commands stay fast.
"""
