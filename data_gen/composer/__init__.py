"""Composes pieces from a seed and instruments, so that training needs no folder of MIDI files.

A style gives tempo, metre, harmony, rhythms, bass figures and drum grooves. A form of sections gives each part a role
(melody, pad, comping, ...) or a rest. A performance adds what players do: swing, timing, accents, pedal, bends. The
aim is variety, not beauty: a model must not learn that strings play high or that drums never rest.

repertoire.py   the tables that all is drawn from
harmony.py      chords, rhythms, voicings
players.py      what a part plays in a section
piece.py        form and parts: the whole
performance.py  steps -> seconds, notes -> MIDI events

Positions and lengths are counted in steps: a step is a sixteenth note, in 6/8 as well.
"""

from data_gen.composer.piece import compose

__all__ = ["compose"]
