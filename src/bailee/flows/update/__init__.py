"""The `update` flow: asks the package index which versions there are, and tells it nothing but the name."""
