"""People, organizations and keys, and the consents they gave."""
