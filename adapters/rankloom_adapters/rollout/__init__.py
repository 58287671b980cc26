"""Live rollout of bundles: states, their registry, and what judges and moves them."""
