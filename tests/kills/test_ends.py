"""What counts as the same end."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from kills.ends import differences, end_of, kinds


@pytest.fixture
def ends(written, tmp_path):
    """Two folders of the same end, written at other times."""
    return [shutil.copytree(folder, tmp_path / folder.name) for folder in written]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    here = tmp_path_factory.mktemp("ends")
    folders = here / "first", here / "second"
    for folder, seconds in zip(folders, (3.5, 4.5), strict=True):
        run = folder / f"20260101-12000{seconds:.0f}"
        (run / "gru").mkdir(parents=True)
        record = {"rows": [{"test_nll": 8.5, "seconds": seconds}], "ended": True}
        (run / "results.json").write_text(json.dumps(record))
        (run / "learning_curves.png").write_text(str(seconds))
        (run / "gru" / "continuation.mid").write_bytes(b"MThd")
        (run / ".lock").touch()
        with tf.summary.create_file_writer(str(run / "gru")).as_default():
            for step in range(3):
                tf.summary.scalar("epoch_nll", 9 - step, step)
                tf.summary.scalar("epoch_steps_per_second", seconds * step, step)
                tf.summary.text("cell", "gru", step)
        keras.utils.clear_session()  # names are numbered
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.save(run / "gru" / "best.keras")
    return folders


def test_times_do_not_count(ends):
    first, second = map(end_of, ends)
    assert first
    assert differences(first, second) == []
    assert kinds(first) == "1 json, 1 keras, 1 mid, 1 png, 1 tfevents"


def double_events(run):
    (events,) = (run / "gru").glob("events*")
    shutil.copyfile(events, f"{events}.again")


def other_weights(run):
    model = keras.saving.load_model(run / "gru" / "best.keras")
    weights = [w + np.float32(1e-7) for w in model.get_weights()]
    model.set_weights(weights)
    model.save(run / "gru" / "best.keras")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (double_events, "run/gru/tfevents epoch_nll: 3 values, then 6"),
        (other_weights, "run/gru/best.keras layers/dense/vars/1: "),
        (
            lambda run: (run / "results.json").write_text('{"ended": false}'),
            "run/results.json /ended: True, then False",
        ),
        (
            lambda run: (run / "gru" / "backup.npz").touch(),
            "run/gru/backup.npz : 0 values, then 1",
        ),
        (
            lambda run: shutil.copytree(run, run.with_name("20260103-140000")),
            "run/gru/continuation.mid : 1 values, then 2",
        ),
    ],
    ids=["doubled", "last bits", "table", "file", "second run"],
)
def test_everything_else_counts(ends, change, message):
    (run,) = ends[1].iterdir()
    change(run)
    found = differences(*map(end_of, ends))
    assert any(line.startswith(message) for line in found), found
