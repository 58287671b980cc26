"""What is known about one score: a row's events, their influences, and what a text may say."""
