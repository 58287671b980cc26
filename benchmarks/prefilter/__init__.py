"""What a prefilter by the trees saves, and what it costs."""
