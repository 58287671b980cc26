"""Version 1 of the wire contract, package rankloom.v1."""
