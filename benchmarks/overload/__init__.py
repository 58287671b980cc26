"""What a server answers in time when it is asked for more than it can do."""
