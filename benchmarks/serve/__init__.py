"""What a server costs around the engine."""
