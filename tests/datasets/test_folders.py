"""Folders and their splits, and that ours take the arguments of Keras's."""

import inspect
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_gated import datasets
from keras_gated.datasets.folders import check_split, find_files, split

# Class labels do not apply to the next step; the default is what is accepted.
OURS = {"labels": None, "label_mode": None}
NOT_OF_MIDI = {"sampling_rate", "output_sequence_length", "ragged"}


@pytest.mark.parametrize(
    ("ours", "without"),
    [
        (datasets.audio_dataset_from_directory, set()),
        (datasets.midi_dataset_from_directory, NOT_OF_MIDI),
    ],
    ids=["audio", "midi"],
)
def test_arguments_are_those_of_keras(ours, without):
    """Their names, their order and their defaults; what is ours follows by keyword."""
    theirs = inspect.signature(keras.utils.audio_dataset_from_directory).parameters
    expected = [
        (name, OURS.get(name, parameter.default))
        for name, parameter in theirs.items()
        if name not in without
    ]
    found = inspect.signature(ours).parameters.values()
    by_place = [(p.name, p.default) for p in found if p.kind == p.POSITIONAL_OR_KEYWORD]
    assert by_place == expected


def test_every_name_is_found_skipped_or_counted(tmp_path):
    """Also in folders that are links, if they are gone into, and once in circles."""
    inner, linked = tmp_path / "root" / "inner", tmp_path / "linked"
    inner.mkdir(parents=True)
    linked.mkdir()
    for name in ("a.MID", "b.txt", ".hidden.mid", ".DS_Store", "README", "c.txt"):
        (inner / name).touch()
    (linked / "d.mid").touch()
    (linked / "e.txt").touch()
    (inner / "gone.mid").symlink_to(inner / "nowhere")
    (inner / "away").symlink_to(linked)
    (inner / "circle").symlink_to(inner)
    found, skipped, others = find_files(tmp_path / "root", {".mid"}, "MIDI file")
    assert found == [inner / "a.MID"]
    assert [*skipped] == [inner / "gone.mid"]
    assert others == {".txt": 2, ".mid": 1, "": 2}
    found, skipped, others = find_files(tmp_path / "root", {".mid"}, "MIDI file", True)
    assert found == [inner / "a.MID", inner / "away" / "d.mid"]
    assert others == {".txt": 3, ".mid": 1, "": 2}


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=40),
    st.floats(0.01, 0.99),
    st.booleans(),
    st.booleans(),
)
def test_splits_keep_groups_together(groups, fraction, shuffle, grouped):
    paths = [Path(str(group), f"{i}.wav") for i, group in enumerate(groups)]
    key = (lambda path: path.parent) if grouped else None
    if grouped and len(set(groups)) < 2:
        with pytest.raises(ValueError, match="There is 1 group, and each of two parts"):
            split(paths, fraction, shuffle, 1, key)
        return
    stay, aside = split(paths, fraction, shuffle, 1, key)
    assert (stay, aside) == split(paths, fraction, shuffle, 1, key)
    assert sorted(stay + aside) == list(range(len(paths)))
    assert stay
    assert aside
    if grouped:
        assert not {groups[i] for i in stay} & {groups[i] for i in aside}
    else:
        wanted = np.clip(fraction * len(paths), 1, len(paths) - 1)
        assert abs(len(aside) - wanted) <= 0.5
        if not shuffle:
            assert aside == list(range(len(paths)))[-len(aside) :]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, "both", True, 1), "`validation_split` must be a finite number above 0"),
        ((True, "both", True, 1), "`validation_split` must be"),
        ((0.1, "test", True, 1), "`subset` must be 'training', 'validation', 'both'"),
        ((0.1, "both", True, -1), "`seed` must be an integer of at least 0"),
        ((None, "both", True, 1), "go together"),
        ((0.1, "training", True, None), "give a `seed`"),
    ],
)
def test_arguments_that_do_not_say_how_to_split(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_split(*arguments)


def test_files_are_not_shuffled_by_chance():
    check_split(0.1, "training", False, None)
    check_split(0.1, "both", True, None)
    check_split(None, None, True, None)


@pytest.mark.parametrize("target", ["a folder above", "a file", "a device", "itself"])
def test_links_lead_to_what_is_meant(tmp_path, target):
    """One to a file is that file, wherever it is; others are skipped or not entered."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.mid").touch()
    (tmp_path / "outside.mid").touch()
    link = root / "link.mid"
    link.symlink_to(
        {
            "a folder above": tmp_path,
            "a file": tmp_path / "outside.mid",
            "a device": "/dev/zero",
            "itself": link,
        }[target]
    )
    found, skipped, _ = find_files(root, {".mid"}, "MIDI file")
    assert found == [root / "a.mid", *[link] * (target == "a file")]
    assert [*skipped] == [link] * (target in ("a device", "itself"))
    found, *_ = find_files(root, {".mid"}, "MIDI file", follow_links=True)
    once = [tmp_path / "outside.mid"] if target == "a folder above" else []
    assert {path.resolve() for path in found} >= {root / "a.mid", *once}
    assert len(found) == len({path.resolve() for path in found})
