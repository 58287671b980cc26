"""Experts and what belongs to them: files, the gate, bundles, generations."""
