"""Bailee: custody for the data of coding agents. The page is the program."""

__version__ = "0.1.0"
