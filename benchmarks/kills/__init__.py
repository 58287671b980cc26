"""A server killed at random while experts are rolled out."""
