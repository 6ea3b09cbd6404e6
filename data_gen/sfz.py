"""Reads SFZ files: the regions that sound when a key is struck and every controller and key switch is where it starts.

The opcodes are those of sfzformat.com. `#include` and `#define` are followed, opcodes are inherited from the headers
above. Of takes that replace each other (round robin, random), the first is kept, since a SoundFont has no such choice.
Where no switch is said to be on at the start, it is the first in the file.
"""

from __future__ import annotations

import collections
import math
import pathlib
import re
from collections.abc import Callable, Mapping

import numpy as np

from data_gen import InputError

_LEVELS = ("global", "master", "group", "region")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_DIRECTIVE = re.compile(r'#define\s+(\$\w+)\s+(\S+)|#include\s+"([^"]*)"')
_OPCODE = re.compile(r"([\w#$]+)=(.*?)(?=\s+[\w#$]+=|\s*$)", re.M)
# Opcodes to which controllers add, and where they start.
_MODULATED = {"ampeg_attack": 0, "ampeg_decay": 0, "ampeg_sustain": 100, "ampeg_release": 0, "amp_veltrack": 100}
_RISE = np.linspace(0, 1, 128)
_CURVES = (_RISE, 2 * _RISE - 1, 1 - _RISE, 1 - 2 * _RISE, _RISE**2, _RISE**0.5, (1 - _RISE) ** 0.5)  # those of ARIA
_BY_CONTROLLER = re.compile(r"(volume|gain|amplitude|tune|pitch|amp_veltrack|ampeg_\w+?)_?(?:on)?cc(\d+)")
_CONTROLLERS = {"7": 100.0, "10": 64.0, "11": 127.0}  # where controllers start: volume, position, expression


def read_regions(path: pathlib.Path, key_of: Callable[[str], int | None]) -> list[dict[str, str]]:
    """Returns the opcodes of each region that a struck key plays, with `sample` relative to the folder of the file.

    Volumes of all levels and what controllers add to it along their curves are summed in `volume`, in dB, likewise
    `tune` in cents.

    Args:
        path: of the SFZ file.
        key_of: reads a key such as c#4 or 61; None for others.

    Raises InputError if the file cannot be read or includes itself.
    """
    control: dict[str, str] = {}
    inherited: dict[str, dict[str, str]] = {}
    regions: list[dict[str, str]] = []
    curves = dict(enumerate(_CURVES))
    for header, body in re.findall(r"<(\w+)>([^<]*)", _expanded(path)):
        opcodes = {name: value.strip() for name, value in _OPCODE.findall(body)}
        if header == "control":
            control |= opcodes
        elif header == "curve":
            curves[int(_number(opcodes.get("curve_index", ""), len(curves)))] = _curve(r"v(\d+)", opcodes)
        elif header in _LEVELS:
            if "sample" in opcodes:
                opcodes["default_path"] = control.get("default_path", "")
            inherited[header] = opcodes
            for lower in _LEVELS[_LEVELS.index(header) + 1 :]:
                inherited.pop(lower, None)
            if header == "region":
                regions.append({name: value for level in _LEVELS for name, value in inherited.get(level, {}).items()})
    controllers = collections.defaultdict(float, _CONTROLLERS)
    controllers |= {name[6:]: _number(value, 0) for name, value in control.items() if re.fullmatch(r"set_cc\d+", name)}
    controllers |= {
        name[8:]: 127 * _number(value, 0) for name, value in control.items() if re.fullmatch(r"set_hdcc\d+", name)
    }
    starts = [region["sw_default"] for region in regions if "sw_default" in region]
    starts += [switch[0] for region in regions if (switch := _switch(region))]
    start = key_of(starts[0]) if starts else None

    def is_switched_on(region: Mapping[str, str]) -> bool:
        if not (switch := _switch(region)):
            return True
        low, high = key_of(switch[0]), key_of(switch[1])
        return None not in (low, start, high) and low <= start <= high  # type: ignore[operator]

    settled = (
        _settled(region, control, controllers, curves)
        for region in regions
        if not region.get("sample", "*").startswith("*")  # *silence and computed waves
        and _is_struck(region, controllers)
        and is_switched_on(region)
    )
    return [region for region in settled if region]


def velocity_gains(region: Mapping[str, str]) -> np.ndarray:
    """Returns the gains of a region at velocities 0 to 127: amp_velcurve_N, else squares; less deep by amp_veltrack."""
    points = r"amp_velcurve_(\d+)"
    gains = _curve(points, region) if any(re.fullmatch(points, name) for name in region) else _RISE**2
    track = _number(region.get("amp_veltrack", ""), 100) / 100
    return 1 - track * (1 - gains) if track >= 0 else -track * (1 - gains)


def _curve(points: str, opcodes: Mapping[str, str]) -> np.ndarray:
    """Returns a curve at 0 to 127: lines between the points that some opcodes give, 0 and 1 at ends that none gives."""
    known = {0: 0.0, 127: 1.0}
    known |= {int(m[1]): _number(value, 0) for name, value in opcodes.items() if (m := re.fullmatch(points, name))}
    return np.interp(np.arange(128), sorted(known), [known[place] for place in sorted(known)])


def _expanded(path: pathlib.Path) -> str:
    """Returns the text of a file and of those that it includes, with the values of its variables in their places."""
    variables: dict[str, str] = {}

    def replaced(text: str) -> str:
        for name in sorted(variables, key=len, reverse=True) if "$" in text else ():
            text = text.replace(name, variables[name])
        return text

    def expand(file: pathlib.Path, within: tuple[pathlib.Path, ...]) -> str:
        if file in within:
            raise InputError(f"{file}: includes itself")
        try:
            text = _COMMENT.sub("", file.read_text(encoding="utf-8", errors="replace"))
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error.strerror})") from None
        parts, end = [], 0
        for found in _DIRECTIVE.finditer(text):
            parts.append(replaced(text[end : found.start()]))
            end = found.end()
            name, value, include = found.groups()
            if name:
                variables[name] = replaced(value)
            else:  # paths count from the folder of the first file
                parts.append(expand(path.parent / replaced(include).replace("\\", "/"), (*within, file)))
        return "".join([*parts, replaced(text[end:])])

    return expand(path, ())


def _number(text: str, default: float) -> float:
    try:
        return float(text)
    except ValueError:
        return default


def _is_struck(region: Mapping[str, str], controllers: Mapping[str, float]) -> bool:
    """Returns whether a key that is struck plays the region: neither a release nor a controller, the first take."""
    for opcode, value in region.items():
        if match := re.fullmatch(r"(lo|hi)(?:hd)?cc(\d+)", opcode):
            limit = _number(value, 0) * (127 if "hd" in opcode else 1)
            if controllers[match[2]] < limit if match[1] == "lo" else controllers[match[2]] > limit:
                return False
        elif re.fullmatch(r"(on|start)_(lo|hi)(hd)?cc\d+|sw_down", opcode):
            return False
    return (
        region.get("trigger", "attack") in ("attack", "first")
        and region.get("seq_position", "1") == "1"
        and _number(region.get("lorand", "0"), 0) == 0
        and region.get("end") != "-1"
    )


def _switch(region: Mapping[str, str]) -> tuple[str, str] | None:
    """Returns the lowest and the highest key that switch the region on; None if it needs no switch."""
    low, high = (region.get(name, region.get("sw_last")) for name in ("sw_lolast", "sw_hilast"))
    return None if low is None or high is None else (low, high)


def _settled(
    region: Mapping[str, str],
    control: Mapping[str, str],
    controllers: Mapping[str, float],
    curves: Mapping[int, np.ndarray],
) -> dict[str, str] | None:
    """Returns the opcodes with the place of the sample, and level and tuning as controllers start; None if silent."""
    db, cents, gain = 0.0, 0.0, _number(region.get("amplitude", "100"), 100) / 100
    modulated: dict[str, float] = {}
    for opcode, text in region.items():
        value = _number(text, 0)
        if opcode in ("volume", "group_volume", "master_volume", "global_volume"):
            db += value
        elif opcode in ("tune", "pitch"):
            cents += value
        elif match := _BY_CONTROLLER.fullmatch(opcode):
            curve = curves.get(int(_number(region.get(f"{match[1]}_curvecc{match[2]}", ""), 0)), _RISE)
            change = value * float(np.interp(controllers[match[2]], np.arange(128), curve))
            if match[1] in _MODULATED:
                start = _number(region.get(match[1], ""), _MODULATED[match[1]])
                modulated[match[1]] = modulated.get(match[1], start) + change
            elif match[1] == "amplitude":
                gain *= change / 100
            elif match[1] in ("volume", "gain"):
                db += change
            elif match[1] in ("tune", "pitch"):
                cents += change
    for direction, number in {(m[1], m[2]) for name in region if (m := re.fullmatch(r"xf(in|out)_..cc(\d+)", name))}:
        first, last = (
            _number(region.get(f"xf{direction}_{end}cc{number}", ""), 0 if direction == "in" else 127)
            for end in ("lo", "hi")
        )
        share = min(1.0, max(0.0, (controllers[number] - first) / max(last - first, 1e-6)))
        gain *= share if direction == "in" else 1 - share
    if gain < 1e-4:
        return None
    sample = (region.get("default_path", "") + region["sample"]).replace("\\", "/")
    shift = 12 * int(_number(control.get("octave_offset", "0"), 0)) + int(_number(control.get("note_offset", "0"), 0))
    return {
        **region,
        **{name: str(value) for name, value in modulated.items()},
        "sample": sample,
        "volume": str(db + 20 * math.log10(gain)),
        "tune": str(cents),
        "note_offset": str(shift),
    }
