"""Bare proxies: what a server and a client cost before they authenticate, decide or record anything."""
