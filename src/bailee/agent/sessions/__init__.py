"""Sessions kept on this machine to be resumed: sealed, for a stated time, never silently gone."""
