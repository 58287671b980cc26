"""RecCoT: rationales written beforehand, review vectors, and two towers that rank with them."""
