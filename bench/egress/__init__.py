"""Tunnels through the security proxy beside other proxies, and what a boundary adds to a start."""
