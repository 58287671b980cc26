"""Experts replaced again and again under load."""
