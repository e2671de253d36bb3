"""Cloud sessions: how long until an agent asks its first, and what an idle one takes."""
