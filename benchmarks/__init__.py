"""Measures rankloom: a room for each question, `common` for what they share."""
