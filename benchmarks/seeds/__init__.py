"""What several bundles that differ in their seed serve, beside their parts."""
