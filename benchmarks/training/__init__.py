"""Throughput of training steps."""
