"""What surrounds a running agent, so that nothing leaves but through the security proxy."""
