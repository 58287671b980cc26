"""What a stored explanation costs over loopback."""
