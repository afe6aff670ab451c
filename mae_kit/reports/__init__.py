"""A run folder becomes one self-contained HTML page, a section a file."""
