"""What retrieval costs, how good and fresh it is, and whether swaps mix revisions."""
