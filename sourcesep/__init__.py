"""Waveform-domain separation of any instruments, trained on synthesised MIDI.

from sourcesep import Separator
stems = Separator.from_run("runs/wavenet").separate(samples, sample_rate)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sourcesep.separate.separation import Separator

__version__ = "0.2.0"
__all__ = ["Separator"]


def __getattr__(name: str) -> Any:
    if name == "Separator":  # imported on first use, since that takes time
        from sourcesep.separate.separation import Separator

        return Separator
    raise AttributeError(f"module 'sourcesep' has no attribute {name!r}")
