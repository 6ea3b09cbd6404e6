"""MIDI in, labelled audio chunks out: the training data of sourcesep, without TensorFlow.

Every error that the person at the keyboard can mend is an `InputError`.
"""


class InputError(ValueError):
    """Bad input; the message says what is wrong, where, and what to do, in one line."""
