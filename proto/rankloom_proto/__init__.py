"""Wire types of rankloom, generated from the .proto files beside them."""
