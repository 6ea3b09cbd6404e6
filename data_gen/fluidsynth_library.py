"""The C functions of libfluidsynth that are used, called through the library that pyfluidsynth finds.

pyfluidsynth itself wraps 16-bit stereo output only. The library is loaded on first use, so that programs which play
nothing do not need it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import threading
from typing import Any

from data_gen import InputError

MAX_LOG_LINES = 20  # lines of FluidSynth's log that are kept: a broken render can write millions

_int, _double, _pointer, _string = ctypes.c_int, ctypes.c_double, ctypes.c_void_p, ctypes.c_char_p
_FUNCTIONS: dict[str, tuple[Any, ...]] = {  # name -> type of the result, types of the arguments
    "fluid_set_log_function": (_pointer, _int, _pointer, _pointer),
    "new_fluid_settings": (_pointer,),
    "delete_fluid_settings": (None, _pointer),
    "fluid_settings_setint": (_int, _pointer, _string, _int),
    "fluid_settings_setnum": (_int, _pointer, _string, _double),
    "new_fluid_synth": (_pointer, _pointer),
    "delete_fluid_synth": (None, _pointer),
    "fluid_synth_sfload": (_int, _pointer, _string, _int),
    "fluid_synth_get_sfont_by_id": (_pointer, _pointer, _int),
    "fluid_synth_add_sfont": (_int, _pointer, _pointer),
    "fluid_synth_remove_sfont": (_int, _pointer, _pointer),
    "fluid_sfont_get_preset": (_pointer, _pointer, _int, _int),
    "fluid_synth_program_select": (_int, _pointer, _int, _int, _int, _int),
    "fluid_synth_noteon": (_int, _pointer, _int, _int, _int),
    "fluid_synth_noteoff": (_int, _pointer, _int, _int),
    "fluid_synth_cc": (_int, _pointer, _int, _int, _int),
    "fluid_synth_pitch_bend": (_int, _pointer, _int, _int),
    "fluid_synth_channel_pressure": (_int, _pointer, _int, _int),
    "fluid_synth_key_pressure": (_int, _pointer, _int, _int, _int),
    "fluid_synth_set_gen": (_int, _pointer, _int, _int, ctypes.c_float),
    "fluid_synth_set_reverb_group_roomsize": (_int, _pointer, _int, _double),
    "fluid_synth_process": (_int, _pointer, _int, _int, _pointer, _int, _pointer),
}


class FluidSynth:
    """The loaded library: the functions above as attributes, without fluid_ and synth_ in their names.

    Attributes:
        log: warnings and errors since the last `log.clear()`. All instances share one log.
        lock: to be held while an instance plays, so that the log belongs to it.
    """

    def __init__(self, library: ctypes.CDLL):
        self.log: list[str] = []
        self.lock = threading.Lock()
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name.replace("fluid_", "").replace("synth_", ""), function)
        log_function = ctypes.CFUNCTYPE(None, _int, _string, _pointer)
        # Kept as attributes: ctypes must not free what the library calls.
        self._keep, self._drop = log_function(self._keep_line), log_function(lambda *_: None)
        for level in range(5):  # panic, error and warning are kept, information and debugging are not
            self.set_log_function(level, self._keep if level < 3 else self._drop, None)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"libfluidsynth: {name} is not among the functions that are used")

    def _keep_line(self, _level: int, message: bytes, _data: Any) -> None:
        if len(self.log) < MAX_LOG_LINES:
            self.log.append(message.decode(errors="replace"))


@functools.cache
def load() -> FluidSynth:
    """Returns the library. Raises InputError, saying how to install it, if it is missing."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it found where the variable CI is set
            import fluidsynth
    except ImportError as error:
        raise InputError(
            "the FluidSynth library is missing (pyfluidsynth does not contain it): install libfluidsynth3 (Debian, "
            "Ubuntu: apt install libfluidsynth3), fluidsynth-libs (Fedora) or fluid-synth (macOS: brew install "
            "fluid-synth)"
        ) from error
    return FluidSynth(fluidsynth._fl)
