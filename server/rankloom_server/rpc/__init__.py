"""What every service of a server shares: errors, statuses, start and stop."""
