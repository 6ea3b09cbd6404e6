"""A run's model -> SavedModel and TFLite files."""
