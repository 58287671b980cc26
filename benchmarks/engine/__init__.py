"""The engine beside other ways to score a mixture of experts, and the roofline."""
