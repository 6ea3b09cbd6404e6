"""The page as a browser shows it and as a person uses it, by keyboard."""

import base64
import io
import json
import re

import numpy as np
import pytest
import soundfile
from browser_helpers import press, start_chromium, wait_until

from sourcesep.evaluate import evaluation, gallery
from sourcesep.evaluate.scores import score_song
from sourcesep.evaluate.songs import LazySong, Song

RATE = 16_000
SECONDS = 10


def tone(hz, begin_s=0.0, channels=1):
    time = np.arange(SECONDS * RATE) / RATE
    samples = 0.2 * np.sin(2 * np.pi * hz * time) * (time >= begin_s)
    return np.repeat(samples[:, None], channels, axis=1).astype(np.float32)


def song(channels=1):
    stems = {"drums": tone(300, 2.0, channels), "bass": tone(100, 0.0, channels)}
    return Song(RATE, sum(stems.values()), stems, notes=("a note & more",))


def nearly(some, advance):
    return {name: 0.9 * stem for name, stem in some.references.items()}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of two songs under two conditions, and its figures."""
    many = [LazySong(f"<song> {name}", f"{name}.sf2", song) for name in ("one", "two")]
    result = evaluation.evaluate(many, tmp_path_factory.mktemp("page"), "a run", nearly)
    return result


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    started = start_chromium(tmp_path_factory.mktemp("chromium"))
    yield started
    started.quit()


@pytest.fixture
def opened(browser, page):
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get(f"file://{page.page}")
    return browser


def focus(browser, selector):
    browser.execute_script("document.querySelector(arguments[0]).focus()", selector)


PLAYER = "document.querySelector('.player').player"
HEARD = f"{PLAYER}.tracks.filter((track) => {PLAYER}.isAudible(track)).map((track) => track.bank + ' ' + track.stem)"


def heard(browser):
    return browser.execute_script(f"return {HEARD}")


def test_the_table_reads_as_the_figures(opened, page):
    rows = [
        [cell.text for cell in row.find_elements("css selector", "th, td")]
        for row in opened.find_elements("css selector", "table.scores")[0].find_elements("css selector", "tbody tr")
    ]
    assert [row[0] for row in rows] == [
        *("drums", "mixture", "constant", "mixture / 2", "zeros", "ideal ratio mask"),
        *("bass", "mixture", "constant", "mixture / 2", "zeros", "ideal ratio mask"),
    ]
    scores = page.figures["summary"]["one.sf2"]["drums"]["model"]
    assert scores["sdr_db"]["median"] == pytest.approx(20.0, abs=0.1)
    assert rows[0][1:4] == ["1", "20.0", "20.0"]
    assert rows[0][-1] == "0 %"  # drums rest for two seconds, and their estimate is silent there
    assert rows[6][-1] == "–"  # the bass never rests


def test_play_by_keyboard_is_heard_and_moves_on(opened):
    from selenium.webdriver.common.keys import Keys

    focus(opened, ".play")
    press(opened, Keys.ENTER)
    wait_until(opened, f"{PLAYER}.at > 0.3")
    assert wait_until(opened, f"{PLAYER}.output.context.state") == "running"
    opened.execute_script(
        f"window.meter = new AnalyserNode({PLAYER}.output.context, {{fftSize: 8192}}); {PLAYER}.output.connect(meter);"
    )
    peak = (
        "(() => { const samples = new Float32Array(meter.fftSize); meter.getFloatTimeDomainData(samples);"
        " return Math.max(...samples.map(Math.abs)); })()"
    )
    wait_until(opened, f"{peak} > 0.1")
    assert float(opened.find_element("css selector", ".seek").get_attribute("value")) > 0.2
    button = opened.find_element("css selector", ".play")
    assert button.text == "Pause" and button.get_attribute("aria-label") == "Pause <song> one"
    for name in ("drums", "bass"):
        focus(opened, f".mute[aria-label='Mute {name}']")
        press(opened, Keys.SPACE)
    wait_until(opened, f"{peak} < 0.001")  # silence comes out when all is muted
    focus(opened, ".play")
    press(opened, Keys.SPACE)
    at = opened.execute_script(f"return {PLAYER}.at")
    assert not opened.execute_script(f"return {PLAYER}.isPlaying")
    assert opened.execute_script(f"return {PLAYER}.at") == at


def test_solo_and_mute_by_keyboard_choose_what_is_heard_in_both_banks(opened):
    from selenium.webdriver.common.keys import Keys

    assert heard(opened) == ["separated drums", "separated bass"]
    focus(opened, ".solo[aria-label='Solo drums']")
    press(opened, Keys.SPACE)
    assert heard(opened) == ["separated drums"]
    assert opened.switch_to.active_element.get_attribute("aria-pressed") == "true"
    press(opened, Keys.TAB, Keys.ENTER)  # on to mute: solo goes before it
    assert opened.switch_to.active_element.get_attribute("aria-label") == "Mute drums"
    assert heard(opened) == ["separated drums"]
    focus(opened, "input[value=separated]")
    press(opened, Keys.ARROW_LEFT)
    assert heard(opened) == ["original drums"]
    focus(opened, ".solo[aria-label='Solo drums']")
    press(opened, Keys.SPACE)
    assert heard(opened) == ["original bass"]  # the drums are still muted
    focus(opened, "input[value=original]")
    press(opened, Keys.ARROW_LEFT)
    assert heard(opened) == ["mixture mixture"]


def test_a_song_that_is_played_stops_the_other(opened):
    from selenium.webdriver.common.keys import Keys

    for selector in ("#song1 .play", "#song2 .play"):
        focus(opened, selector)
        press(opened, Keys.ENTER)
    wait_until(opened, "document.querySelector('#song2').player.at > 0.1")
    assert opened.execute_script("return document.querySelectorAll('.playing').length") == 1


def test_the_position_can_be_set_by_keyboard(opened):
    from selenium.webdriver.common.keys import Keys

    focus(opened, ".seek")
    press(opened, Keys.END)
    assert opened.execute_script(f"return {PLAYER}.at") > 7
    press(opened, Keys.HOME)
    assert opened.find_element("css selector", ".clock").text == "0.0 s"


def test_every_control_has_a_name_and_shows_its_focus(opened):
    from selenium.webdriver.common.keys import Keys

    opened.execute_script("document.activeElement.blur()")
    seen = []
    while True:
        press(opened, Keys.TAB)
        element = opened.switch_to.active_element
        if element.tag_name == "body":  # once round
            break
        name = element.accessible_name
        assert name, element.get_attribute("outerHTML")
        marked = "const e = arguments[0]; const shown = e.type == 'radio' ? e.nextElementSibling : e;"
        assert opened.execute_script(f"{marked} return getComputedStyle(shown).outlineStyle", element) == "solid", name
        seen.append(name)
    for wanted in ("Play <song> one", "Position in seconds", "Separated", "Solo drums", "Mute bass"):
        assert wanted in seen


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_no_width_needs_sideways_scrolling(opened, width):
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 780, "deviceScaleFactor": 1, "mobile": width < 700},
    )
    opened.execute_script("document.querySelectorAll('details').forEach((details) => (details.open = true))")
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    assert opened.execute_script(
        "return [...document.querySelectorAll('main *')].every((e) => e.getBoundingClientRect().right <= innerWidth + 1"
        " || getComputedStyle(e).position == 'absolute' || e.closest('svg, thead, .hidden'))"
    )


def test_the_page_asks_for_nothing_and_complains_of_nothing(opened):
    entries = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"}
    assert any(url.endswith("index.html") for url in asked)
    assert not [url for url in asked if url.startswith(("http:", "https:", "ws:", "wss:"))]
    assert not [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"]


def test_the_page_holds_everything_and_names_are_escaped(page):
    text = page.page.read_text()
    assert "<song>" not in text and "&lt;song&gt; one" in text
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert len(text) < 15e6
    assert "a note &amp; more" in text


def test_the_sound_in_the_page_is_the_song(page):
    (uri,) = re.findall(r'data-bank="mixture" data-audio="([^"]+)"', page.page.read_text())[:1]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert rate == RATE and len(samples) / rate == pytest.approx(gallery.CLIP_S, abs=0.2)
    spectrum = np.abs(np.fft.rfft(samples[: 4 * RATE] * np.hanning(4 * RATE)))
    assert {round(np.argmax(spectrum[:800]) / 4), round((800 + np.argmax(spectrum[800:])) / 4)} == {100, 300}
    assert 0.7 < np.abs(samples).max() < 1.0


def test_an_example_is_where_most_stems_play_and_keeps_their_balance():
    piece = {"name": "s", "condition": "c", **score_song(song(), song().references)}
    example = gallery.make_example(piece, song(), song().references)
    assert example["begin_s"] == 2.0
    assert [stem["name"] for stem in example["stems"]] == ["drums", "bass"]


def test_examples_stop_before_the_page_grows_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "MAX_BYTES", 1)
    many = [LazySong(str(index), "c", song) for index in range(3)]
    text = evaluation.evaluate(many, tmp_path, "t", nearly).page.read_text()
    assert text.count('class="player"') == 1


def test_songs_of_odd_rates_and_of_less_than_a_second_make_a_page(tmp_path):
    short = {"drums": tone(300, channels=2)[:300], "bass": tone(100, channels=2)[:300]}
    many = [LazySong("short", "c", lambda: Song(37_800, sum(short.values()), short))]
    assert evaluation.evaluate(many, tmp_path, "t", nearly).page.exists()
