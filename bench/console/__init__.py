"""How soon pages of the console begin, on a service that holds many sessions."""
