"""Masked image pretraining, from a folder of images to a classifier."""
