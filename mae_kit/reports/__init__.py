"""HTML pages of runs and comparisons, and model cards; one file for each section."""
