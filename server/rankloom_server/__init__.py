"""The servers of rankloom: gRPC in front, admission, the ladder, health and drain."""
