"""Training: turns an interaction log into a bundle, calibrates it and evaluates it."""
