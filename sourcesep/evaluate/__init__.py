"""Separations -> scores: metrics.json, a table for the terminal, and an HTML page."""
