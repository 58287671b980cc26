"""The command line. `main` is its entry point; nothing here is public."""
