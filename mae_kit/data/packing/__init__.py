"""Images become shards."""
