"""Tamper-evident log, receipts, offline verification."""
