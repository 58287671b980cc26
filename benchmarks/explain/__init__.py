"""What explanations cost: evidence beside a ranking, grounding beside a step of words."""
