"""Attacks on a boundary, each with the promise it attacks and a control in which it succeeds."""
