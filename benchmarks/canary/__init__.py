"""What canary gates say of experts that learned shuffled labels."""
