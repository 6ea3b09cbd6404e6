"""A recording and a model -> one file per stem."""
