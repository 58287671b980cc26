"""Live rollout of bundles: states, the registry, traffic, trials and gates."""
