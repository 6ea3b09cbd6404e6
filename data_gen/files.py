"""Writes files whole or not at all, and finds the cache folder."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path in the same folder to write to, which takes the place of `path` when the block ends.

    A reader sees the old file or the new one, never half of it; after an error the old one is still there.

    Args:
        path: file to create or replace; its folder must exist.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")  # the suffix stays: some writers ask for theirs
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: str | pathlib.Path, data: bytes) -> None:
    """Writes a file so that it is there whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(data)
