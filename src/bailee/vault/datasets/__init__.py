"""Datasets: what may train models at this moment, written out, and checked again for as long as it exists."""
