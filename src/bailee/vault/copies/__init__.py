"""Copies of content that Bailee wrote outside the vault: known before their first byte, and followed."""
