"""Offline = online: rows of the log as training saw them and as a server sees them."""
