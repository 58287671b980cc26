"""What a ranker knows about a user: latent vectors, events and tabular features."""
