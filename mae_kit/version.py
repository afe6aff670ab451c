"""The one place of the version: pyproject.toml reads it, `mae-kit --version` prints it."""

__version__ = "0.1.0"
