"""Experts and what belongs to them: files, the router, bundles, revisions."""
