"""The `forwarding` flow: metrics and errors go on to a next hop, as far as the catalogue let them through."""
