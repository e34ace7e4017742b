"""A model goes on with a MIDI file in a real browser, as it does here."""

import dataclasses
import functools
import http.server
import json
import shutil
import sys
import threading
from pathlib import Path

import export_page
import keras
import numpy as np
import pytest
from differentiate import array

import keras_gated
from keras_gated import exporting, generation
from keras_gated.datasets import midi

if keras.config.backend() != "tensorflow":
    pytest.skip("exports are TensorFlow's", allow_module_level=True)
DOCS = Path(__file__).parents[2] / "docs" / "tensorboard"
K = keras.layers


def whole(order="descending", onsets=True, transpose="C", features=()):
    width = 176 if onsets else 88
    frames, following = keras.Input((None, width)), keras.Input((None, width))
    x = keras_gated.RollEncoding(2, transpose, onsets, features)(frames)
    x = keras_gated.GRU(8, return_sequences=True)(x)
    known = keras_gated.DelayLine([0, 2])(frames)
    head = keras_gated.NADE(4, tied_units=3, window=5, order=order, onsets=onsets)
    return keras.Model([frames, following], head([x, following, known]))


def independent(**encoding):
    layers = [
        keras_gated.RollEncoding("4/3", **encoding),
        keras_gated.LSTM(8, return_sequences=True),
        K.Dense(88),
    ]
    return keras.Sequential([keras.Input((None, 88)), *layers])


MODELS = {"whole": whole, "ascending": lambda: whole("ascending", False, 2)}
MODELS["independent"] = independent


def of_name(name):
    """With weights that make some keys sound, and not too many."""
    random, model = np.random.default_rng(3), MODELS[name]()
    for weight in model.trainable_variables:
        weight.assign(0.3 * random.normal(size=weight.shape))
    bias = model.layers[-1].bias
    bias.assign(array(bias) * 5 - 4)
    return model


def tune(path, key):
    """In 3/4, a key that is struck again, two tempi, a second voice and drums."""
    import pretty_midi

    file = pretty_midi.PrettyMIDI(initial_tempo=90)
    file.time_signature_changes.append(pretty_midi.TimeSignature(3, 4, 0))
    if key:
        file.key_signature_changes.append(pretty_midi.KeySignature(9, 0))  # A major
    for program, drum, first in ((0, False, 69), (40, False, 57), (0, True, 38)):
        part = pretty_midi.Instrument(program, drum)
        for n in range(14):
            pitch = first + (0, 0, 4, 7, 12)[n % 5]
            begin = n * 60 / 90
            part.notes.append(pretty_midi.Note(70, pitch, begin, begin + 0.66))
        file.instruments.append(part)
    file.write(str(path))


def uniforms(seed):
    """The page's numbers: mulberry32."""
    state, word = seed, 0xFFFFFFFF
    while True:
        state = state + 0x6D2B79F5 & word
        x = (state ^ state >> 15) * (state | 1) & word
        x ^= x + ((x ^ x >> 7) * (x | 61) & word) & word
        yield ((x ^ x >> 14) & word) / 2**32


def key_by_key(model, roll, count, seed, known):
    """What follows a roll, by the definition: a step of the model for each key."""
    step, numbers = exporting.SingleStep(model), uniforms(seed)
    names = [name for name in step.inputs if not name.startswith("state_")]

    def logits(frame, states, drawn):
        given = dict(zip(names, (frame[None], drawn[None]), strict=False))
        y, *new = (array(x) for x in step(given | states).values())
        return y[0], dict(zip(states, new, strict=True))

    states, silence = step.initial_states(1), np.zeros(roll.shape[1], "float32")
    for frame in roll[:-1].astype("float32"):
        _, states = logits(frame, states, silence)
    frame, made = roll[-1].astype("float32"), []
    for _ in range(count):
        u = np.array([max(next(numbers), 1e-9) for _ in known["order"]])
        noise, drawn = np.log(u) - np.log1p(-u), silence.copy()
        for place, key in enumerate(known["order"]):
            y, after = logits(frame, states, drawn)
            drawn[key] = y[key] > noise[place]
        frame, states = drawn, after
        made.append(drawn)
    return np.array(made)


@pytest.fixture
def export(tmp_path, monkeypatch):
    """Runs the script on a model; its exit code."""

    def run_here(model):
        model.save(tmp_path / "model.keras")
        places = {"--model": tmp_path / "model.keras", "--to": tmp_path / "page"}
        arguments = [str(word) for pair in places.items() for word in pair]
        monkeypatch.setattr(sys, "argv", ["export_page.py", *arguments])
        return export_page.main()

    return run_here


@pytest.fixture
def served(tmp_path):
    """The address of a folder of `tmp_path`."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    (tmp_path / "page").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "page"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture
def browser(monkeypatch):
    pytest.importorskip("selenium", reason="make test-browser installs selenium")
    for program in ("npm", "chromium", "chromedriver"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    monkeypatch.syspath_prepend(str(DOCS))
    from take_screenshots import browser

    driver = browser(900, logs=True)
    driver.set_script_timeout(120)
    yield driver
    driver.quit()


RUN = """
const [bars, temperature, seed, done] = arguments;
for (const [id, value] of Object.entries({ bars, temperature, seed }))
  document.getElementById(id).value = value;
page.run().then(
  ({ before, made, semitones, bytes }) => done({
    before: before.map((x) => [...x]), made: made.map((x) => [...x]), semitones,
    bytes: [...bytes] }),
  (error) => done({ error: String(error.stack) }));
"""


def wait(driver, text):
    from selenium.webdriver.support.ui import WebDriverWait

    found = lambda d: text in d.find_element("id", "message").text  # noqa: E731
    WebDriverWait(driver, 60).until(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_page_goes_on_as_the_model_does(
    name, tmp_path, export, served, browser, capsys
):
    model = of_name(name)
    assert export(model) == 0, capsys.readouterr().err
    encoding, known = keras_gated.RollEncoding.of(model), export_page.about(model)
    tune(tmp_path / "tune.mid", key=name == "whole")
    browser.get(served)
    wait(browser, "Choose a file")
    browser.find_element("id", "file").send_keys(str(tmp_path / "tune.mid"))
    wait(browser, "notes")

    def run(*arguments):
        found = browser.execute_async_script(RUN, *arguments)
        assert "error" not in found, found["error"]
        return found

    steps = encoding.steps_per_quarter
    piece = midi.read_piece(tmp_path / "tune.mid")
    seam = midi.find_seam(piece, steps, bars=2)
    transpose, onsets = encoding.transpose, encoding.onsets
    options = midi.Options(steps, transpose=transpose, onsets=onsets)
    reading = midi.read_all(tmp_path / "tune.mid", options)
    roll = np.zeros((seam.step, known["width"]), np.uint8)
    roll[: len(reading.roll)] = reading.roll
    found = run(2, 0, 1)
    np.testing.assert_array_equal(found["before"], roll)
    assert found["semitones"] == reading.semitones
    expected = generation.generate(model, roll, seam.steps, seed=1, temperature=0)
    np.testing.assert_array_equal(found["made"], expected)

    found = run(2, 1, 7)
    made = np.array(found["made"])
    expected = key_by_key(model, roll, 3, 7, known)
    assert 0 < expected.sum() < expected.size / 2
    np.testing.assert_array_equal(made[:3], expected)

    # The file as it was, and the new notes.
    path = tmp_path / "longer.mid"
    path.write_bytes(bytes(found["bytes"]))
    import mido

    before, after = mido.MidiFile(tmp_path / "tune.mid"), mido.MidiFile(path)
    assert after.tracks[:-1] == before.tracks
    options = dataclasses.replace(options, transpose=found["semitones"])
    again = midi.read_all(path, options).roll
    np.testing.assert_array_equal(again[: len(reading.roll)], reading.roll)
    keys = np.flatnonzero(made[:, :88].any(1))
    length = keys[-1] + 1 if len(keys) else 0
    np.testing.assert_array_equal(again[seam.step :, :88], made[:length, :88])

    # What a person does, and sees.
    browser.find_element("id", "go").click()
    wait(browser, "steps in")
    assert browser.find_element("id", "canvas").size["width"] > 6 * seam.step
    assert browser.find_element("id", "save").is_displayed()
    browser.save_screenshot(str(tmp_path / "page.png"))
    (tmp_path / "text.mid").write_text("no music")
    browser.find_element("id", "file").send_keys(str(tmp_path / "text.mid"))
    wait(browser, "text.mid cannot be read")
    assert not browser.find_element("id", "go").is_enabled()
    assert not browser.get_log("browser")
    for entry in browser.get_log("performance"):
        request = json.loads(entry["message"])["message"]["params"].get("request", {})
        url = request.get("url", served)
        assert url.startswith((served, "data:", "blob:")), url


LOOK = """
const { semitones, first, count, before } = page.look();
const on = before.flatMap((frame, t) => [...frame.keys()].filter((k) => frame[k])
  .map((k) => [t, k]));
return { semitones, first, count, on };
"""


@pytest.mark.slow
def test_the_page_reads_real_files_as_the_package(
    tmp_path, monkeypatch, export, served, browser
):
    """Of music21's corpus, with all that its files have; and made ones."""
    monkeypatch.syspath_prepend(str(DOCS.parents[1] / "benchmarks"))
    from fidelity_files import made_here, of_corpus

    model = whole()
    assert export(model) == 0
    browser.get(served)
    wait(browser, "Choose a file")
    files = [*of_corpus(tmp_path), *made_here(tmp_path)]
    assert len(files) > 20
    for path in files:
        browser.find_element("id", "file").send_keys(str(path))
        wait(browser, f"{path.name}: ")
        found = browser.execute_script(LOOK)
        seam = midi.find_seam(midi.read_piece(path), 2, bars=8)
        reading = midi.read_all(path, midi.Options(2, transpose="C", onsets=True))
        assert found["semitones"] == reading.semitones
        assert (found["first"], found["count"]) == (seam.step, seam.steps)
        on = np.argwhere(reading.roll[: seam.step]).tolist()
        assert found["on"] == on


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: whole(features=["meter"]), "is told the meter of each step"),
        (lambda: keras.Sequential(independent().layers[1:]), "does not say how"),
        (
            lambda: keras.Sequential([*independent().layers, K.Activation("sigmoid")]),
            "that end in NADE or in Dense",
        ),
    ],
)
def test_what_the_page_cannot_run_is_said(make, message, tmp_path, export, capsys):
    model = make()
    model.build((None, None, 88))
    assert export(model) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "page").exists()


def test_without_npm(monkeypatch, export, capsys):
    model = independent()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert export(model) == 2
    assert "install Node.js" in capsys.readouterr().err
