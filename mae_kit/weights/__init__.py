"""Weights of other programs, in and out: one file, one published layout."""
