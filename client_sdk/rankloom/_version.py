"""The package's version, in a module that imports nothing, so that anyone may import it."""

__version__ = "0.1.0"
