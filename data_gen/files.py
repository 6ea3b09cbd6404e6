"""Writes files whole or not at all, and walks through folders."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Iterator

from absl import logging

from data_gen import InputError


@contextlib.contextmanager
def replacing(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path in the same folder to write to, which takes the place of `path` when the block ends.

    A reader sees the old file or the new one, never half of it; after an error the old one is still there.

    Args:
        path: file to create or replace; its folder must exist.
    """
    path = pathlib.Path(path)
    # The suffixes stay, since some writers ask for theirs; the rest is short, since `path` may have the longest name
    # that the file system takes.
    partial = path.with_name(f".partial-{os.getpid()}-{short_name(path)}{''.join(path.suffixes[-2:])[-20:]}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: str | pathlib.Path, data: bytes) -> None:
    """Writes a file so that it is there whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def short_name(path: str | os.PathLike[str]) -> str:
    """Returns a name of 16 letters that stands for the name of a file, for temporary files."""
    return hashlib.sha256(os.fsencode(os.path.basename(os.fspath(path)))).hexdigest()[:16]


def expand(path: str) -> str:
    """Returns a path that a user typed as an absolute one, with the home folder in place of ~; "" stays ""."""
    return os.path.abspath(os.path.expanduser(path)) if path else ""


def split_weight(entry: str) -> tuple[str, float]:
    """Splits PATH or PATH:WEIGHT; the weight is 1 where none is given. Raises InputError unless it is above 0."""
    path, colon, text = entry.rpartition(":")
    try:
        weight = float(text)
    except ValueError:
        return entry, 1.0  # a colon of the path itself
    if not colon:
        return entry, 1.0
    if not 0 < weight < float("inf"):
        raise InputError(f"{entry}: the weight after the colon must be a number above 0")
    return path, weight


def walk(folder: str | os.PathLike[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yields (path of a folder, names of its folders, names of its files) for a folder and all below it.

    Links are followed, each folder and each file comes once, however many links lead to it, and links that lead back
    come to an end. What is reached without a link comes first. Folders that cannot be read are logged and left out.
    The caller may remove names of folders, which are then not entered. Names are sorted.
    """
    linked = [os.fspath(folder)]
    entered: set[str] = set()
    seen: set[str] = set()  # real paths of files

    def visit(place: str) -> Iterator[tuple[str, list[str], list[str]]]:
        real = os.path.realpath(place)
        if real in entered:
            return
        entered.add(real)
        try:
            with os.scandir(place) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            logging.warning("%s: cannot be read (%s)", place, error.strerror)
            return
        folders = [entry.name for entry in entries if os.path.isdir(entry.path)]
        files = []
        for entry in sorted(entries, key=lambda entry: entry.is_symlink()):
            real_file = os.path.realpath(entry.path)
            if os.path.exists(real_file) and not os.path.isdir(real_file) and real_file not in seen:
                seen.add(real_file)
                files.append(entry.name)
        links = {entry.name for entry in entries if entry.is_symlink()}
        yield place, folders, sorted(files)
        for name in folders:
            path = os.path.join(place, name)
            if name in links:
                linked.append(path)
            else:
                yield from visit(path)

    while linked:
        yield from visit(linked.pop(0))
