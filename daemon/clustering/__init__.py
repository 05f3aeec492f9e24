"""Assignment on arrival, reclustering, permanent cluster identities."""
