"""Separates recordings: a recording and a model in, one sound file per stem out."""
