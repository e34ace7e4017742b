"""What README says works, as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parents[1] / "README.md"


def blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def run(code, epochs):
    code, count = re.subn(r"epochs=\d+", "epochs=1", code)
    assert count == epochs
    exec(code, {})


def test_python_of_readme(tmp_path, monkeypatch):
    """Only the number of epochs is cut, and few rolls stand for the chorales."""
    from keras_gated.datasets import bach_chorales, midi

    random = np.random.default_rng(0)
    rolls = [(random.random((40, 88)) < 0.05).astype(np.uint8) for _ in range(12)]
    monkeypatch.setattr(
        bach_chorales, "load_data", lambda steps_per_quarter: (rolls,) * 3
    )
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(README)
    run(code, epochs=1)
    assert midi.read(tmp_path / "new.mid").any()


def test_python_of_the_page_on_midi(tmp_path, monkeypatch):
    """The model is one that its reader has."""
    from keras_gated.datasets import midi

    monkeypatch.chdir(tmp_path)
    for k in range(10):
        midi.write(np.eye(88)[k:40].repeat(2, axis=0), f"music/{k}.mid")
    midi.write(np.eye(88), "tune.mid")
    model = """
import keras
model = keras.Sequential([keras.Input((None, 88)), keras.layers.Dense(88)])
model.compile("adam", "mse")
"""
    run("\n".join([model, *blocks(README.parent / "docs" / "midi.md")]), epochs=1)
    assert midi.read("same.mid").any()


@pytest.mark.slow
def test_python_of_the_page_on_resuming(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("\n".join(blocks(README.parent / "docs" / "resuming.md")), epochs=2)
    assert {path.name for path in Path("run").iterdir()} >= {"backup.npz", "own.npz"}


@pytest.mark.slow
def test_python_of_the_page_on_audio(tmp_path, monkeypatch):
    """All blocks in a row; the last, which never ends, is left out."""
    from keras_gated.datasets import audio

    monkeypatch.chdir(tmp_path)
    for k in range(10):
        tone = 0.5 * np.sin((0.1 + 0.01 * k) * np.arange(2000))
        audio.write(tone, f"recordings/{k}.wav", 8000)
    audio.write(tone, "speech.flac", 8000)
    code = "import keras\n" + "\n".join(blocks(README.parent / "docs" / "audio.md"))
    run(code.partition("for block in")[0] + "assert sound.any()", epochs=1)


@pytest.mark.slow
def test_python_of_the_page_on_corpora(tmp_path, monkeypatch):
    pytest.importorskip("apache_beam", reason="the extra 'beam' is not installed")
    import corpus_scripts

    from keras_gated.datasets import audio, midi

    monkeypatch.chdir(tmp_path)
    midi.write(np.eye(88), "music/a.mid")
    audio.write(np.sin(np.arange(9000.0)), "speech/a.flac", 16_000)
    for kind, folder, arguments in (
        ("midi", "music", ()),
        ("audio", "speech", ("--sampling-rate", 16_000)),
    ):
        prepare = corpus_scripts.in_this_process(f"prepare_{kind}_corpus.py")
        prepare(tmp_path / folder, tmp_path / f"{folder}_corpus", *arguments)
    (code,) = blocks(README.parent / "docs" / "corpora.md")
    run(f"{code}assert len([*music, *speech]) == 2", epochs=0)


@pytest.mark.slow
def test_python_of_the_page_on_scaling_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = README.parent / "docs" / "scaling_out.md"
    run("\n".join(blocks(page)), epochs=1)
    assert (tmp_path / "run" / "model.keras").exists()


def test_python_of_the_page_on_safety(tmp_path, monkeypatch, capsys):
    import keras

    from keras_gated.datasets import midi

    monkeypatch.chdir(tmp_path)
    midi.write(np.eye(88), "music/a.mid")
    (tmp_path / "music" / "b.mid").write_text("no music")
    keras.Sequential([keras.Input((3,))]).save("model.keras")
    run("\n".join(blocks(README.parent / "docs" / "safety.md")), epochs=0)
    assert "b.mid' is not a MIDI file" in capsys.readouterr().out


@pytest.mark.slow
def test_python_of_the_page_on_generation(tmp_path, monkeypatch):
    from keras_gated.datasets import midi

    monkeypatch.chdir(tmp_path)
    run("\n".join(blocks(README.parent / "docs" / "generation.md")), epochs=2)
    assert len(midi.read_piece("longer.mid").voices[0].notes) > 3


def test_python_of_the_page_on_layers(capsys):
    run("\n".join(blocks(README.parent / "docs" / "layers.md")), epochs=0)
    assert (
        "the gradient of the step of MinimalCell is automatic"
        in capsys.readouterr().out
    )


@pytest.mark.slow
def test_python_of_the_page_on_a_cell_of_ones_own(tmp_path, monkeypatch, capsys):
    """Few rolls stand for the chorales; the cell is that of the example."""
    from keras_gated.datasets import bach_chorales

    random = np.random.default_rng(0)
    rolls = [(random.random((40, 88)) < 0.05).astype(np.uint8) for _ in range(12)]
    monkeypatch.setattr(
        bach_chorales, "load_data", lambda steps_per_quarter: (rolls,) * 3
    )
    monkeypatch.chdir(tmp_path)
    page = README.parent / "docs" / "own_cell.md"
    run("\n".join(blocks(page)), epochs=1)
    out = capsys.readouterr().out
    assert "the gradient of the step of LEMCell is automatic" in out
    assert "\na (40, 39)\nb (40, 39)\n" in out
    example = (README.parent / "examples" / "lem.py").read_text()
    body = example.partition("tuple[list, dict]:\n")[2].partition("\n\n\n")[0]
    assert body.strip()
    assert body in page.read_text()


@pytest.mark.slow
def test_python_of_the_page_on_exports(tmp_path, monkeypatch):
    pytest.importorskip("tf2onnx")
    monkeypatch.chdir(tmp_path)
    run("\n".join(blocks(README.parent / "docs" / "exports.md")), epochs=0)
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"model.onnx", "step.onnx", "step.tflite", "saved"}


@pytest.mark.slow
def test_python_of_the_site_s_pages(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for page, epochs in (
        ("quick_start", 2),
        ("choosing_a_cell", 0),
        ("coming_from", 0),
    ):
        run("\n".join(blocks(README.parent / "docs" / f"{page}.md")), epochs=epochs)
    out = capsys.readouterr().out
    assert "{'tanh': 100, 'lstm': 36, 'gru': 46, 'simplified_gru': 62}" in out
    assert "fast: GRUCell brings the gradient of its step" in out


def test_messages_of_the_page_on_troubles_are_in_the_code():
    """A message may be divided into several strings, with values between them."""
    code = ""
    for folder in ("keras_gated", "datasets", "examples"):
        for path in sorted((README.parent / folder).rglob("*.py")):
            code += path.read_text() + "\n"
    code = re.sub(r'"\s*f?"', "", code)
    page = (README.parent / "docs" / "troubleshooting.md").read_text()
    messages = re.findall(r"^\| `(.+?)` \| ", page, re.MULTILINE)
    assert len(messages) > 30
    assert not [message for message in messages if message not in code]


def test_links_of_the_pages_lead_somewhere():
    for page in (README, *README.parent.glob("docs/*.md"), *README.parent.glob("*.md")):
        for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_commands_of_readme_are_there(command):
    makefile = (README.parent / "Makefile").read_text()
    assert command in README.read_text()
    assert re.search(rf"^{command.removeprefix('make ')}:", makefile, re.MULTILINE)
