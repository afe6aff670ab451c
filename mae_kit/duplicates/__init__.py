"""Near-duplicates in shards."""
