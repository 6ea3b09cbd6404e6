"""The page in headless Chromium, a little of it in Firefox: what it separates, plays, writes and refuses."""

import base64
import contextlib
import functools
import http.server
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
import zipfile

import numpy as np
import pytest
import soundfile
from browser_helpers import drag, press, start_chromium, start_firefox, wait_until
from conftest import ROOT, TINY, change
from helpers import make_run, noise

from data_gen import InputError
from sourcesep.export import web_page
from sourcesep.export.exporting import export
from sourcesep.export.web_server import make_server
from sourcesep.separate.separation import Separator
from sourcesep.separate.tflite_model import PACKAGED, TFLiteModel, read_file

RATE = 44_100
ABOUT = read_file(PACKAGED)[1]
STEMS, MODEL_RATE = ABOUT["instruments"], ABOUT["sample_rate_hz"]
READY = "document.body.dataset.state === 'ready'"
DONE = "document.querySelector('.download')?.href"
MESSAGE = "document.getElementById('message').textContent"
STATUS = "document.getElementById('status').textContent"
PLAYER = "sourcesep.player"


def song(seconds, rate=RATE, channels=2):
    """A bass, a hi-hat and a chord, without sound in the band next to the model's Nyquist frequency."""
    time = np.arange(round(seconds * rate)) / rate
    left = 0.2 * np.sin(2 * np.pi * 82 * time) + 0.1 * np.sin(2 * np.pi * 440 * time) * np.exp(-2 * (time % 1))
    left += 0.1 * np.sin(2 * np.pi * 5_000 * time) * np.exp(-30 * (time % 0.25))
    return np.stack([left, 0.5 * left[::-1]], axis=1)[:, :channels].astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The page of the packaged model."""
    page = tmp_path_factory.mktemp("web") / "page"
    try:
        web_page.write_page(page, PACKAGED)
    except InputError as error:
        pytest.skip(str(error))  # no npm, or no network
    return page


@contextlib.contextmanager
def serving(server):
    """Yields the address of a server."""
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def address(folder):
    with serving(make_server(str(folder), 0)) as address:
        yield address


@pytest.fixture(scope="module")
def stereo(config, folder, tmp_path_factory):
    """The page of a small model of two channels with random weights, as export.py writes it."""
    scratch = tmp_path_factory.mktemp("stereo")
    run = make_run(change(config, **{**TINY, "model": "bandnet", "channels": 2}), scratch / "run")
    (exported,) = export(run.path, scratch / "out", ["web"], tflite_window_s=0.1)
    return exported.path


def plain_server(folder, port=0):
    """Returns a server of a folder like `python -m http.server`, without the headers that threads need."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    return http.server.ThreadingHTTPServer(("localhost", port), functools.partial(Handler, directory=str(folder)))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    downloads = tmp_path_factory.mktemp("downloads")
    started = start_chromium(
        tmp_path_factory.mktemp("chromium"),
        "use-fake-device-for-media-stream",
        "use-fake-ui-for-media-stream",
    )
    started.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    started.downloads = downloads
    yield started
    started.quit()


@pytest.fixture(scope="module")
def opened(browser, address):
    browser.get(address)
    wait_until(browser, READY)
    return browser


def choose(browser, path):
    browser.find_element("id", "file").send_keys(str(path))


def separate(browser, path, names=STEMS):
    """Separates a file on the page; returns its stems as the page gives them for download."""
    choose(browser, path)
    wait_until(browser, f"{DONE} || {MESSAGE}", 60)
    assert browser.execute_script(f"return {MESSAGE}") == ""
    return read_stems(browser, names)


def read_stems(browser, names=STEMS):
    stems = {}
    for name in names:
        script = "const [name, done] = arguments; fetch(document.querySelector(`[aria-label='Download ${name}']`).href)"
        script += ".then((response) => response.blob()).then((blob) => { const reader = new FileReader();"
        script += "reader.onload = () => done(reader.result); reader.readAsDataURL(blob); })"
        data = browser.execute_async_script(script, name)
        with browser_file(data) as file:
            stems[name], rate = soundfile.read(file, dtype="float32", always_2d=True)
    return stems


def browser_file(data_url):
    return io.BytesIO(base64.b64decode(data_url.partition(",")[2]))


@pytest.fixture(scope="module")
def separated(opened, tmp_path_factory):
    """(the browser with a song separated, the stems that it gives, those of the Separator in Python)."""
    path = tmp_path_factory.mktemp("song") / "a song.wav"
    soundfile.write(path, song(9.0, MODEL_RATE, 1), MODEL_RATE, "PCM_24")
    stems = separate(opened, path)
    samples, _ = soundfile.read(path, dtype="float32")
    return opened, stems, Separator.from_tflite().separate(samples, MODEL_RATE)


def test_stems_are_those_of_python(separated):
    _, stems, expected = separated
    for name in STEMS:
        np.testing.assert_allclose(stems[name][:, 0], expected[name], atol=1e-4)


def test_the_page_is_isolated_computes_in_threads_and_says_what_the_model_is(separated):
    browser, *_ = separated
    assert browser.execute_script("return crossOriginIsolated")
    assert "WebAssembly" in browser.find_element("id", "engine").text
    assert f"{', '.join(STEMS[:-1])} and {STEMS[-1]}" in browser.find_element("id", "about").text
    assert f"{MODEL_RATE // 2:,} Hz" in browser.find_element("id", "about").text


def test_the_mixer_is_worked_by_keyboard(separated):
    browser, *_ = separated
    browser.execute_script("document.activeElement.blur()")
    audible = f"return {PLAYER}.mixes.map((_, index) => {PLAYER}.isAudible(index))"
    press(browser, "2")
    assert browser.execute_script(audible) == [name == STEMS[1] for name in STEMS]
    press(browser, "2", "l")
    browser.find_element("css selector", f"[aria-label='Mute {STEMS[0]}']").send_keys(" ")
    assert browser.execute_script(audible) == [name != STEMS[0] for name in STEMS]
    browser.execute_script("document.activeElement.blur()")
    press(browser, "\ue014")  # right
    assert browser.execute_script(f"return {PLAYER}.position / {PLAYER}.rate") == 5
    press(browser, " ")
    wait_until(browser, f"{PLAYER}.position > 5.2 * {PLAYER}.rate")
    wait_until(browser, f"{PLAYER}.position < 4 * {PLAYER}.rate")  # L repeats it
    press(browser, " ")
    assert not browser.execute_script(f"return {PLAYER}.playing")
    assert browser.find_element("id", "loop").get_attribute("aria-pressed") == "true"


def test_spectrograms_show_where_a_sound_is_and_take_the_place_of_waveforms(separated):
    """A sine as loud as possible has a level of 0 dB in the band in which it lies, and far less elsewhere."""
    browser, *_ = separated
    script = """
        const done = arguments[0];
        import("./files.js").then(({ Spectrogram }) => {
          const sine = Float32Array.from({ length: 40_000 }, (_, i) => Math.sin(2 * Math.PI * 1_000 * i / 16_000));
          const picture = new Spectrogram({ nSamples: 40_000, nChannels: 1, sampleRate: 16_000 }, 8_000);
          picture.add(sine.subarray(0, 9_999));
          picture.add(sine.subarray(9_999));
          const last = Math.floor(40_000 / 2_048) - 1;
          done([Array.from(picture.levels.subarray(last * 64, last * 64 + 64)), picture.bins]);
        });
    """
    levels, bins = browser.execute_async_script(script)
    loudest = int(np.argmax(levels))
    assert levels[loudest] == pytest.approx(0, abs=0.01)
    assert bins[loudest] <= 1_000 * 2_048 / 16_000 <= bins[loudest + 1]
    assert max(levels[: loudest - 3] + levels[loudest + 4 :]) < -60
    press(browser, "s")
    picture = "document.querySelector('canvas').toDataURL()"
    spectrogram = browser.execute_script(f"return {picture}")
    press(browser, "s")
    assert browser.execute_script(f"return {picture}") != spectrogram


def test_a_part_is_repeated_by_keyboard_and_by_drawing_over_a_picture(separated):
    browser, *_ = separated
    part = browser.find_element("id", "part")
    move = f"document.activeElement.blur(); {PLAYER}.seek(arguments[0] * {PLAYER}.rate)"
    browser.execute_script(move, 3)
    press(browser, "i")
    assert part.text == "Repeats 0:03.0 to 0:09.0."
    browser.execute_script(move, 3.5)
    press(browser, "o")
    assert part.text == "Repeats 0:03.0 to 0:03.5."
    press(browser, " ")
    watch = f"const [done] = arguments, seen = []; const timer = setInterval(() => seen.push({PLAYER}.position), 50);"
    watch += f"setTimeout(() => {{ clearInterval(timer); done(seen.map((place) => place / {PLAYER}.rate)) }}, 1_500)"
    seen = np.array(browser.execute_async_script(watch))
    assert seen.min() >= 3 and seen.max() <= 3.5
    assert (np.diff(seen) < 0).sum() >= 2
    press(browser, " ", "l")
    assert part.text == ""
    picture = browser.find_element("css selector", "canvas")
    third = picture.size["width"] // 3
    drag(browser, picture, third)
    drawn = browser.execute_script(f"return {PLAYER}.part.map((place) => place / {PLAYER}.rate)")
    assert drawn == pytest.approx([4.5, 7.5], abs=0.1)
    drag(browser, picture, 0)
    assert browser.execute_script(f"return {PLAYER}.position / {PLAYER}.rate") == pytest.approx(4.5, abs=0.1)
    press(browser, "l")
    assert not browser.execute_script(f"return {PLAYER}.loop")


@pytest.mark.parametrize("part", [None, (8_000, 14_000)])
def test_what_is_played_is_the_stems_in_step(separated, part):
    """The sound of two seconds, from a context that computes it rather than plays it, is the sum of the stems."""
    browser, stems, _ = separated
    script = """
        const [part, done] = arguments;
        (async () => {
          const { Player } = await import("./player.js");
          const offline = new OfflineAudioContext(1, 2 * sourcesep.player.rate, sourcesep.player.rate);
          Object.defineProperty(offline, "resume", { value: async () => {} });
          const player = new Player(sourcesep.job.stems, sourcesep.job.recording);
          player.context = offline;
          player.gains = player.stems.map(() => {
            const gain = offline.createGain(); gain.connect(offline.destination); return gain;
          });
          if (part) player.repeat(true, part);
          await player.play();
          await new Promise((resolve) => setTimeout(resolve, 500));
          const rendered = await offline.startRendering();
          player.silence();
          done(Array.from(rendered.getChannelData(0)));
        })();
    """
    heard = np.array(browser.execute_async_script(script, part), np.float32)
    begin = round(0.05 * MODEL_RATE)
    expected = sum(stems.values())[:, 0]
    if part:
        repeats = len(heard) // (part[1] - part[0])
        expected = np.concatenate([expected[: part[1]], *[expected[slice(*part)]] * repeats])
    np.testing.assert_allclose(heard[begin:], expected[: len(heard) - begin], atol=1e-3)


def test_all_stems_come_in_one_archive(separated, tmp_path):
    browser, stems, _ = separated
    browser.find_element("id", "zip").click()
    path = browser.downloads / "a song.zip"
    for _ in range(100):
        if path.exists():
            break
        threading.Event().wait(0.1)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{name}.wav" for name in STEMS]
        for name in STEMS:
            got, _ = soundfile.read(io.BytesIO(archive.read(f"{name}.wav")), dtype="float32", always_2d=True)
            np.testing.assert_array_equal(got, stems[name])


def test_nothing_comes_from_another_host(separated, address):
    browser, *_ = separated
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    asked = [url for url in urls if url.startswith(("http:", "https:"))]
    assert len(asked) > 5
    assert not [url for url in asked if not url.startswith(address)]


def test_stereo_at_another_rate_from_mp3_has_the_length_and_rate_of_the_file(opened, tmp_path):
    """What precedes and follows the sound in an MP3 file differs between decoders."""
    soundfile.write(tmp_path / "song.wav", song(3.0), RATE, "FLOAT")
    stems = separate(opened, tmp_path / "song.wav")
    expected = Separator.from_tflite().separate(song(3.0), RATE)
    for name in STEMS:
        assert stems[name].shape == expected[name].shape
        difference = np.abs(stems[name] - expected[name]).max()
        assert difference < 3e-3, (name, difference)
    if not shutil.which("ffmpeg"):
        pytest.skip("no ffmpeg to write an MP3 file")
    subprocess.run(["ffmpeg", "-loglevel", "error", "-i", tmp_path / "song.wav", tmp_path / "song.mp3"], check=True)
    from_mp3 = separate(opened, tmp_path / "song.mp3")["bass"]
    assert abs(len(from_mp3) - 3 * RATE) < 3_000  # what an MP3 file adds
    searched = from_mp3[RATE - 3_000 : RATE + 23_000, 0]
    lag = np.argmax(np.correlate(searched, stems["bass"][RATE : RATE + 20_000, 0], "valid")) - 3_000
    moved = from_mp3[RATE + lag : RATE + lag + 20_000]
    assert np.abs(moved - stems["bass"][RATE : RATE + 20_000]).max() < 0.05


def test_a_recording_can_be_cancelled_and_another_one_follows(opened, tmp_path):
    soundfile.write(tmp_path / "long.wav", song(300.0, 16_000, 1), 16_000, "PCM_16")
    choose(opened, tmp_path / "long.wav")
    wait_until(opened, f"{PLAYER} && {PLAYER}.readable > 0")
    opened.find_element("id", "play").click()  # what is there can be heard while the rest is computed
    wait_until(opened, f"{PLAYER}.position > 0.1 * {PLAYER}.rate")
    opened.find_element("id", "cancel").click()
    wait_until(opened, f"{STATUS} === 'Cancelled.'")
    assert opened.execute_script("return document.body.dataset.state") == "ready"
    soundfile.write(tmp_path / "short.wav", song(0.5, 16_000, 1), 16_000)
    assert len(separate(opened, tmp_path / "short.wav")["bass"]) == 8_000


def test_stems_are_written_into_a_folder_block_by_block(opened, tmp_path):
    """The folder is the browser's own, since no test can answer its question for one on the disk."""
    soundfile.write(tmp_path / "song.wav", song(8.0, 16_000, 1), 16_000, "FLOAT")
    opened.execute_script(
        "window.showDirectoryPicker = () => navigator.storage.getDirectory();"
        "document.getElementById('folder-choice').hidden = false; document.getElementById('folder').checked = true"
    )
    stems = separate(opened, tmp_path / "song.wav")
    script = """
        navigator.storage.getDirectory().then((folder) => folder.getFileHandle("bass.wav"))
          .then((handle) => handle.getFile()).then((file) => file.arrayBuffer())
          .then((buffer) => arguments[0](Array.from(new Uint8Array(buffer))));
    """
    written, rate = soundfile.read(io.BytesIO(bytes(opened.execute_async_script(script))), dtype="float32")
    opened.execute_script("document.getElementById('folder').checked = false")
    assert rate == 16_000
    np.testing.assert_array_equal(written, stems["bass"][:, 0])


def test_the_microphone_is_recorded_and_separated(opened):
    opened.find_element("id", "record").click()
    wait_until(opened, "document.getElementById('record').textContent.startsWith('Stop')")
    threading.Event().wait(1.0)
    opened.find_element("id", "record").click()
    wait_until(opened, f"document.getElementById('name').textContent === 'recording' && {DONE}", 60)
    assert max(np.abs(stem).max() for stem in read_stems(opened).values()) > 0


def test_what_cannot_be_decoded_or_kept_is_refused_in_words(opened, tmp_path):
    (tmp_path / "notes.mp3").write_text("no sound")
    choose(opened, tmp_path / "notes.mp3")
    assert "notes.mp3: this browser cannot decode it" in wait_until(opened, MESSAGE)
    header = bytearray(io.BytesIO().getvalue())
    with io.BytesIO() as file:
        soundfile.write(file, np.zeros((1, 2)), RATE, format="WAV", subtype="PCM_16")
        header = bytearray(file.getvalue()[:44])
    header[40:44] = (3600 * RATE * 4).to_bytes(4, "little")
    with open(tmp_path / "hour.wav", "wb") as file:  # of silence, which takes no place on the disk
        file.write(header)
        file.truncate(44 + 3600 * RATE * 4)
    choose(opened, tmp_path / "hour.wav")
    wait_until(opened, f"{MESSAGE}.includes('hour.wav')")
    minutes = 2**31 // len(STEMS) // 8 // RATE // 60
    assert f"which holds {minutes} minutes of it" in opened.execute_script(f"return {MESSAGE}")


def test_a_phone_shows_all_of_it_and_everything_has_a_name(opened, tmp_path):
    soundfile.write(tmp_path / "song.wav", noise(4_000, 1), 16_000)
    separate(opened, tmp_path / "song.wav")
    metrics_ = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics_)
    wide = "(element) => element.getBoundingClientRect().right > 360"
    assert not opened.execute_script(f"return [...document.querySelectorAll('*')].filter({wide})")
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    nodes = opened.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    controls = [
        node for node in nodes if node.get("role", {}).get("value") in ("button", "slider", "link", "progressbar")
    ]
    assert len(controls) >= 4 + 4 * len(STEMS)
    assert not [node for node in controls if not node.get("name", {}).get("value")]


def test_it_works_without_network_once_loaded_and_in_threads_on_any_host(browser, folder, stereo, tmp_path):
    versions = "navigator.serviceWorker.ready.then(() => caches.keys()).then(arguments[0])"
    site = tmp_path / "site"
    shutil.copytree(folder, site)
    for path in site.iterdir():
        os.utime(path, (0, 0))  # the older a file is, the longer a browser uses its copy without asking
    with serving(plain_server(site)) as address:
        browser.get(address)
        wait_until(browser, READY)
        assert "one thread" in browser.find_element("id", "engine").text
        first = browser.execute_async_script(versions)
        assert len(first) == 1
    browser.refresh()  # nobody answers
    wait_until(browser, READY)
    assert browser.execute_script("return crossOriginIsolated")
    assert "threads" in browser.find_element("id", "engine").text
    soundfile.write(tmp_path / "song.wav", song(0.5, 16_000, 1), 16_000)
    assert len(separate(browser, tmp_path / "song.wav")["bass"]) == 8_000
    # Another export at the same address takes its place, with and without network.
    shutil.rmtree(site)
    shutil.copytree(stereo, site)
    newer = f"{READY} && document.getElementById('about').textContent.startsWith('Into drums and bass.')"
    port = int(address.rstrip("/").rpartition(":")[2])
    with serving(plain_server(site, port)):
        browser.refresh()
        wait_until(browser, newer)
        for _ in range(100):
            kept = browser.execute_async_script(versions)
            if len(kept) == 1 and kept != first:
                break
            threading.Event().wait(0.1)
    assert len(kept) == 1 and kept != first
    browser.refresh()
    wait_until(browser, newer)
    # Where there is another page, it is left alone.
    shutil.rmtree(site)
    site.mkdir()
    (site / "index.html").write_text("<title>something else</title>")
    with serving(plain_server(site, port)):
        browser.refresh()
        assert browser.title == "something else"
        assert not browser.execute_script("return crossOriginIsolated")
        script = "navigator.serviceWorker.getRegistrations().then((found) => arguments[0](found.length))"
        assert browser.execute_async_script(script) == 0
        assert browser.execute_async_script("caches.keys().then(arguments[0])") == []


def test_a_model_of_two_channels_separates_as_in_python(browser, stereo, tmp_path):
    """Also in the middle of a long silence, whose windows the page computes once."""
    separator = Separator.from_tflite(stereo / "model.tflite")
    with serving(plain_server(stereo)) as address:
        browser.get(address)
        wait_until(browser, READY)
        for n_channels in (1, 2, 3):
            samples = noise(8_000, n_channels)
            samples[1_500:6_500] = 0
            soundfile.write(tmp_path / "noise.wav", samples, separator.sample_rate, "FLOAT")
            stems = separate(browser, tmp_path / "noise.wav", separator.stem_names)
            for name, stem in separator.separate(samples, separator.sample_rate).items():
                assert np.abs(stem).max() > 1e-3
                np.testing.assert_allclose(stems[name], stem, atol=1e-4)


@pytest.mark.parametrize("damage", ["a byte", "the end"])
def test_a_damaged_model_is_refused(browser, folder, address, damage):
    path = folder / "model.tflite"
    whole = path.read_bytes()
    data = bytearray(whole)
    data[len(data) // 2] ^= 1
    path.write_bytes(data if damage == "a byte" else whole[: len(whole) // 2])
    try:
        browser.get(f"{address}?{damage}")
        assert "The model is damaged" in wait_until(browser, MESSAGE)
        assert not browser.find_element("id", "file").is_enabled()
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("delete self.WebAssembly;", "This browser has no WebAssembly."),
        (  # what Chromium throws where memory is short
            "WebAssembly.Memory = function () { throw new RangeError('could not allocate memory') };",
            "There is too little memory (could not allocate memory). Close other tabs",
        ),
    ],
)
def test_a_browser_that_cannot_compute_is_told_why(browser, folder, fault, words):
    script = folder / "worker.js"
    whole = script.read_text()
    script.write_text(fault + whole)
    try:
        # At an address of its own, since the browser may keep a script that is not a second older.
        with serving(make_server(str(folder), 0)) as address:
            browser.get(address)
            assert words in wait_until(browser, MESSAGE)
    finally:
        script.write_text(whole)


def test_firefox_gives_the_stems_of_python(address, tmp_path):
    firefox = start_firefox(tmp_path)
    try:
        firefox.get(address)
        wait_until(firefox, READY)
        assert "threads" in firefox.execute_script("return document.getElementById('engine').textContent")
        soundfile.write(tmp_path / "song.wav", song(2.0, MODEL_RATE, 1), MODEL_RATE, "FLOAT")
        stems = separate(firefox, tmp_path / "song.wav")
    finally:
        firefox.quit()
    for name, stem in Separator.from_tflite().separate(song(2.0, MODEL_RATE, 1), MODEL_RATE).items():
        np.testing.assert_allclose(stems[name], stem, atol=1e-4)


def test_the_command_serves_the_page_with_the_headers_that_threads_need(folder):
    script = "from sourcesep import cli; cli.web()"
    command = [sys.executable, "-c", script, "--noopen", "--port=0", f"--page={folder}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        address = process.stdout.readline().split()[0]
        with urllib.request.urlopen(f"{address}model.json") as response:
            assert json.load(response)["instruments"] == STEMS
            assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_export_writes_the_page_of_a_run(folder, stereo):
    assert stereo.name == "run-web"
    assert sorted(path.name for path in stereo.parent.iterdir()) == ["run-web"]
    assert sorted(path.name for path in stereo.iterdir()) == sorted(path.name for path in folder.iterdir())
    assert json.loads((stereo / "model.json").read_text())["instruments"] == ["drums", "bass"]
    assert TFLiteModel(stereo / "model.tflite").window_samples == 800


def test_a_page_without_litert_says_where_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="holds no LiteRT.js; run npm install @litertjs/core@"):
        web_page.write_page(tmp_path / "page", PACKAGED, str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(web_page.platformdirs, "user_cache_dir", lambda _: str(tmp_path / "cache"))
    with pytest.raises(InputError, match="there is no npm to fetch it"):
        web_page.write_page(tmp_path / "page", PACKAGED)
    assert not (tmp_path / "page").exists()
