"""Plots of what is inside a model, from tensors."""
