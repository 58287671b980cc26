"""Traces: verdicts with their reasons, made by a teacher, checked, and kept in a Parquet file."""
