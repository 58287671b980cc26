"""Which of transformers' decoders can be served, tried on small models."""
