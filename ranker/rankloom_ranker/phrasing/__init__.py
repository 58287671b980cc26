"""Sentences about evidence: what each states, and which hold of an explanation."""
