"""Modules that remember their arguments: rebuilt from a recipe or a file, saved, on the Hub; classes of the user."""
