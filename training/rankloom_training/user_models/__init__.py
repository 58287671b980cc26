"""Fits the user model: item factors, item means, and the prior by its evidence."""
