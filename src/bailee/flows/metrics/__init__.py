"""Operational metrics: what agents export over OTLP, taken in by an allow-list."""
