"""Shards read without extracting."""
