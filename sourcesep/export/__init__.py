"""A run -> its model as a SavedModel and as TFLite files."""
