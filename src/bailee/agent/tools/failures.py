"""What a tool raises when it cannot do what it was asked."""


class Failed(Exception):
    """A tool could not do what it was asked; the text is for the model."""
