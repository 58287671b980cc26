"""What the rooms share: timing, facts of the machine, results, workload, server processes."""
