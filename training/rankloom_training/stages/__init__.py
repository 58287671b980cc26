"""The stages of a training run: what each reads, makes and does, and how finished ones are kept."""
