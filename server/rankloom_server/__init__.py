"""The servers of rankloom: gRPC in front, admission, deployment, health and drain."""
