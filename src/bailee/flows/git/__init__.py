"""Git through the service: smart HTTP with the credential outside, and one rule for what may be written."""
