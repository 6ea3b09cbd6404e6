"""Stems in, labelled audio chunks out: the training data of sourcesep, without TensorFlow."""


class InputError(ValueError):
    """Bad input that the user can correct. The message is one line: what is wrong, where, and what to do."""


class RenderError(RuntimeError):
    """A song could not be rendered correctly, so its audio must not be used."""
