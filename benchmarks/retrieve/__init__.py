"""What retrieval costs beside bare faiss, and whether swaps mix revisions."""
