"""How long each stage of a training takes, on a generated log of any size."""
