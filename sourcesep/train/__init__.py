"""Chunks and a Config -> a trained model in a run directory."""
