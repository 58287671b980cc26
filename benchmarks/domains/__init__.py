"""Experts by domain: what they are worth, and what a domain that comes later needs."""
