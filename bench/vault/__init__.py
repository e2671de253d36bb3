"""What is kept of a conversation, and what keeping it costs."""
