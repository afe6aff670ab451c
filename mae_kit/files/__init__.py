"""Files that are complete or absent, safely read: recipes, runs, tensors, JSON, pickles."""
