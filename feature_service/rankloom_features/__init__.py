"""Features of users: latent vectors, events, tabular features and trees."""
