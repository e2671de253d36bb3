"""The ledger: an append-only log that shows when it was altered, its receipts, and their verification."""
