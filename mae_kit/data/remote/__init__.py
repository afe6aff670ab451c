"""Shards behind a URL."""
