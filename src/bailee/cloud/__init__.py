"""Cloud sessions: an isolated machine for each, credentials outside it."""
