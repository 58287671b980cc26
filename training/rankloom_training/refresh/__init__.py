"""Brings a finished bundle up to date with new rows, at a fraction of a training's cost."""
