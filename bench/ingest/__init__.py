"""How fast operational data is received and held, and at what cost."""
