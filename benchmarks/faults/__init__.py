"""What rankings are worth while the feature service is at fault."""
