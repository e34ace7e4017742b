"""What README says works, as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parents[1] / "README.md"


def test_python_of_readme(chorales_home, tmp_path, monkeypatch):
    """All blocks in a row; only the number of epochs is cut."""
    from keras_gated.datasets import audio, bach_chorales, midi

    whole = bach_chorales.load_data()
    few = tuple(part[:12] for part in whole)
    monkeypatch.setattr(bach_chorales, "load_data", lambda **_: few)
    monkeypatch.chdir(tmp_path)
    for k, roll in enumerate(few[0][:5]):
        midi.write(roll, f"music/{k}.mid")
    for k in range(10):
        tone = 0.5 * np.sin((0.1 + 0.01 * k) * np.arange(2000))
        audio.write(tone, f"recordings/{k}.wav", 8000)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 4
    code, count = re.subn(r"epochs=\d+", "epochs=1", "\n".join(blocks))
    assert count == 3
    exec(code, {})
    assert midi.read(tmp_path / "new.mid").any()
    samples, rate = audio.read(tmp_path / "new.wav")
    assert samples.any()
    assert (samples.shape, rate) == ((16_000, 1), 8000)


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_commands_of_readme_are_there(command):
    makefile = (README.parent / "Makefile").read_text()
    assert command in README.read_text()
    assert re.search(rf"^{command.removeprefix('make ')}:", makefile, re.MULTILINE)
