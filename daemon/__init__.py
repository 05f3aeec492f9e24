"""The work: watching, encoding, clustering, deduplicating and filing. Prints nothing."""
