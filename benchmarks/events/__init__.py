"""The event store, read and written at a given size."""
