"""How a training's cost grows with the log: seconds, memory and exponents, stage by stage."""
