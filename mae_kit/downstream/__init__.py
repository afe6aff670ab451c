"""Using an encoder: classifiers that start from it or from nothing."""
