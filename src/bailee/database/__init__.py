"""Engines, and what they promise of the files beneath them."""
