"""One function for each attack; its docstring is the promise. They run inside the boundary they attack."""
