"""What rationales are worth to the two towers."""
