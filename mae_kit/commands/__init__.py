"""One verb, one file of its name: it reads paths and recipes, calls the library, prints and writes files."""
