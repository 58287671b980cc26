"""Short texts of items: keywords and a description, by a teacher or from the catalogue itself."""
