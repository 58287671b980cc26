"""The engine: a prompt of token ids, packed, through one mixture of experts."""
