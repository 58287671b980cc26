"""From an interaction log to a bundle: learning, calibration and evaluation."""
