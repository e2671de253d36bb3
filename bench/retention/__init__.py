"""How long it takes until what is due is gone, and how much disk that gives back."""
