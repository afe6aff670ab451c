"""Images on disk to cropped uint8 batches: an island that knows shards and pixels, but no model."""
