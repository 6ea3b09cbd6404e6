"""Measures the packaged model in Chromium beside Python, or takes a picture of the page.

python -m benchmarks.web                                        speed, as Markdown
python -m benchmarks.web --silence_s=3600                       memory of the browser: noise, an hour of silence, noise
python -m benchmarks.web --song=song.wav --picture=docs/web.png the page with a song separated
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import soundfile
from absl import app, flags

from benchmarks.browser import start_chromium, wait_until
from sourcesep.export.web_page import write_page
from sourcesep.export.web_server import make_server
from sourcesep.separate.separation import Separator
from sourcesep.separate.tflite_model import PACKAGED, read_file

SECONDS, TRIES = 60, 3
_, MODEL = read_file(PACKAGED)
RATE, CHANNELS = MODEL["sample_rate_hz"], MODEL["channels"]
NOISE_S = 20  # before and after the silence
BUSY, READY = "document.body.dataset.state === 'busy'", "document.body.dataset.state === 'ready'"


@contextlib.contextmanager
def opened_page(query: str = "", *more_flags: str) -> Iterator[Any]:
    """Serves the page of the packaged model and yields a browser that has loaded it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        write_page(pathlib.Path(scratch, "page"), PACKAGED)
        browser = start_chromium(pathlib.Path(scratch, "profile"), *more_flags)
        try:
            with make_server(str(pathlib.Path(scratch, "page")), 0) as server:
                threading.Thread(target=server.serve_forever, daemon=True).start()
                browser.get(f"http://localhost:{server.server_port}/{query}")
                wait_until(browser, READY, 60)
                yield browser
                server.shutdown()
        finally:
            browser.quit()


def separate(browser: Any, path: pathlib.Path, limit_s: float = 3_600.0) -> float:
    """Separates a file on the page and returns the seconds that took."""
    began_s = time.perf_counter()
    browser.find_element("id", "file").send_keys(str(path))
    wait_until(browser, BUSY)
    wait_until(browser, f"{READY} && document.querySelector('.download')?.href", limit_s)
    return time.perf_counter() - began_s


def measure_speed() -> None:
    """Prints times real time, the fastest of some tries each."""
    noise = (0.1 * np.random.default_rng(0).standard_normal((SECONDS * RATE, CHANNELS))).astype(np.float32)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch, "noise.wav")
        soundfile.write(path, noise, RATE, "FLOAT")
        for n_threads in (1, 2):
            with opened_page(f"?threads={n_threads}&accelerator=wasm") as browser:
                fastest_s = min(separate(browser, path) for _ in range(TRIES))
            rows.append((f"Chromium, WebAssembly, {n_threads} thread(s)", fastest_s))
    for n_threads in (1, 2):
        rows.append((f"Python, LiteRT, {n_threads} thread(s)", _fastest_s(Separator.from_tflite, noise, n_threads)))
    rows.append(("Python, TensorFlow", _fastest_s(Separator.from_run, noise)))
    print(f"{SECONDS} s of {CHANNELS} channel(s) at {RATE:,} Hz with the packaged model.\n")
    print("| | times real time |\n|---|---:|")
    for name, seconds in rows:
        print(f"| {name} | {SECONDS / seconds:.1f} |")


def _fastest_s(load: Any, noise: np.ndarray, n_threads: int = 0) -> float:
    separator = load(n_threads=n_threads) if n_threads else load()
    durations_s = []
    for _ in range(TRIES + 1):  # the first one is slower
        began_s = time.perf_counter()
        separator.separate(noise, RATE)
        durations_s.append(time.perf_counter() - began_s)
    return min(durations_s)


def measure_memory(silence_s: int) -> None:
    """Prints the memory of the browser as a recording padded with silence is written into a folder, in stereo.

    The page computes the stems of digital silence once, so that this takes minutes; everything else is done to them.
    """
    with tempfile.TemporaryDirectory() as scratch, opened_page() as browser:
        path = pathlib.Path(scratch, "padded.wav")
        noise = 0.1 * np.random.default_rng(0).standard_normal((NOISE_S * RATE, 2))
        with soundfile.SoundFile(path, "w", RATE, 2, "PCM_16") as file:
            file.write(noise)
            for _ in range(silence_s):
                file.write(np.zeros((RATE, 2), np.int16))
            file.write(noise)
        browser.execute_script(
            "window.showDirectoryPicker = () => navigator.storage.getDirectory();"
            "document.getElementById('folder').checked = true"
        )
        worker = threading.Thread(target=lambda: separate(browser, path))
        before_mb, began_s = _memory_mb(), time.perf_counter()
        worker.start()
        peaks_mb = []
        while worker.is_alive():
            worker.join(1.0)
            peaks_mb.append(_memory_mb())
        tenth = max(1, len(peaks_mb) // 10)
        print(
            f"{silence_s} s of silence between {NOISE_S} s of noise, stereo at {RATE:,} Hz, in "
            f"{time.perf_counter() - began_s:.0f} s: the browser takes {before_mb:.0f} MB before, "
            f"{max(peaks_mb[: 2 * tenth]):.0f} MB at most in the first fifth, {max(peaks_mb):.0f} MB at most in all"
        )


def _memory_mb() -> float:
    """Returns the proportional memory of all processes of the browser."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total / 2**20


def take_picture(song: str, picture: str) -> None:
    """Writes a picture of the page with a song separated."""
    with opened_page("", "window-size=1180,1210", "hide-scrollbars") as browser:
        separate(browser, pathlib.Path(song).resolve())
        browser.execute_script(
            "sourcesep.player.change(0, { solo: true }); sourcesep.player.change(3, { solo: true });"
            "sourcesep.player.repeat(true, [0.3, 0.55].map((share) => Math.round(share * sourcesep.player.length)));"
            "sourcesep.player.seek(0.37 * sourcesep.player.length)"
        )
        browser.save_screenshot(os.path.abspath(picture))


def main(_: list[str]) -> None:
    """Does what the flags say."""
    if flags.FLAGS.picture:
        take_picture(flags.FLAGS.song, flags.FLAGS.picture)
    elif flags.FLAGS.silence_s:
        measure_memory(flags.FLAGS.silence_s)
    else:
        measure_speed()


if __name__ == "__main__":
    flags.DEFINE_integer("silence_s", 0, "Length of the silence whose separation is watched, in seconds.")
    flags.DEFINE_string("song", "", "Recording for the picture.")
    flags.DEFINE_string("picture", "", "PNG file to write.")
    app.run(main)
