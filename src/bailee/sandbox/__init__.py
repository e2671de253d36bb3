"""Machines that sessions run in."""
