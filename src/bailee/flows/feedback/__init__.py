"""The `feedback` flow: a report that a person sends, after all of it was shown, held for its own time."""
