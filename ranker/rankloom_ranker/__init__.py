"""A loaded bundle, a user and items become a ranking or an explanation: one code path for all."""
