"""Live rollout of bundles: states, their registry, who is sent where, and what moves them."""
