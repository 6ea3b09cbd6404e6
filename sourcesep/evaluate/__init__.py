"""A model or a finished separation -> scores and a page."""
