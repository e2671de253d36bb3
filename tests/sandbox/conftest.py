"""Machines of every kind in a boundary that leads nowhere but to what a test serves."""
