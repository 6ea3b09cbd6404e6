"""Waveform-domain separation of any instruments, trained on synthesised MIDI.

from sourcesep import Separator
stems = Separator.from_run("runs/wavenet").separate(samples, sample_rate)
"""

__version__ = "0.2.0"


def __getattr__(name: str):
    if name == "Separator":  # imported when asked for: it brings TensorFlow with it
        from sourcesep.separate.separation import Separator

        return Separator
    raise AttributeError(f"module 'sourcesep' has no attribute {name!r}")
