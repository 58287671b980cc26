"""Those who write what the language model learns to say: the evidence teacher, and models."""
