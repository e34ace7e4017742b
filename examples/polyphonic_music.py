"""Trains the cells of Chung et al. (2014) at equal size on polyphonic music.

Every cell gets the number of units that brings its recurrent layer nearest to
the same number of parameters, sees the same music in the same order, and
predicts every next step. The music is Bach's chorales, one of the sets of the
paper, or a folder of MIDI files. The results are a table, and in the log folder, for
every cell, the best model, its continuation of a piece it has not seen (MIDI and
PNG), TensorBoard curves and pictures; and for all cells the learning curves.
"""

import argparse
import dataclasses
import math
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import quiet  # noqa: F401
import comparison
import keras
import numpy as np
from comparison import music, positive

import keras_gated
from keras_gated import callbacks
from keras_gated.datasets import (
    bach_chorales,
    jsb_chorales,
    midi,
    midi_directory,
    muse_data,
    nottingham,
    piano_midi,
    piano_roll,
)

# The published sets, and their steps per quarter note.
PUBLISHED = {
    "jsb": (jsb_chorales, 1),
    "nottingham": (nottingham, 2),
    "muse": (muse_data, 2),
    "piano": (piano_midi, 2),
}
JOINT = {
    "units": 200,
    "epochs": 40,
    "patience": 40,
    "learning_rate": 0.002,
    "head": "tied",
    "dropout": 0.5,
}
"""What the model of whole frames is trained with, besides --weight-noise and --seed."""
MAX_SHAPES_OF_CHORALES = 4
"""The most shapes of batches; the chorales have similar lengths, so more do not pay."""
PRIMER_BARS, CONTINUATION_BARS, QUARTERS_A_BAR = 4, 16, 4
COLUMNS = {
    "cell": "{cell}",
    "units": "{units}",
    "parameters": "{parameters:,}",
    "epochs": "{epochs}",
    "seconds": "{seconds:.0f}",
    "test NLL": "{test_nll:.3f}",
    "by sequence": "{test_nll_sequence:.3f}",
    "accuracy": "{test_accuracy:.1%}",
}


def parse_arguments() -> argparse.Namespace:
    parser = comparison.parser(
        __doc__,
        budget=20_000,
        epochs=120,
        patience=15,
        batch_size=8,
        learning_rate=0.005,
        log_dir=Path("runs/polyphonic_music"),
    )
    add = parser.add_argument
    add(
        "--steps-per-quarter",
        type=grid,
        default=2,
        metavar="N",
        help="steps per quarter note, of Bach's chorales and MIDI files; for these "
        "also a fraction such as 4/3, or auto: the coarsest grid that keeps 99 %% of "
        "the notes (default: %(default)s)",
    )
    add(
        "--joint",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether to train the model of whole frames, too, whose continuations "
        "are worth hearing",
    )
    add(
        "--sequence-length",
        type=positive(int),
        metavar="N",
        help="train on sequences of N steps, cut from the pieces: more updates "
        "in less time if pieces are long (default: whole pieces)",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--dataset",
        choices=["bach", *PUBLISHED],
        default="bach",
        help="bach: the chorales in music21's package; or one of the paper's sets, "
        "downloaded once (default: %(default)s)",
    )
    add(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="a folder with the published sets' .mat files, instead of the download",
    )
    source.add_argument(
        "--midi-dir",
        type=Path,
        metavar="DIR",
        help="train on the MIDI files of this folder and its subfolders instead "
        "of Bach's chorales: 60 %% for training, 20 %% each for validation and "
        "test",
    )
    return parser.parse_args()


def grid(text: str) -> int | Fraction | str:
    """`auto`, or a number of steps in a quarter note."""
    if text == "auto":
        return text
    number = Fraction(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not positive")
    return int(number) if number.denominator == 1 else number


def load_music(args: argparse.Namespace) -> bach_chorales.Splits:
    if args.midi_dir is None:
        if args.dataset == "bach":
            return bach_chorales.load_data(args.steps_per_quarter)
        module, args.steps_per_quarter = PUBLISHED[args.dataset]
        return module.load_data(args.data_dir)
    corpus = midi_directory.read_directory(
        args.midi_dir, steps_per_quarter=args.steps_per_quarter
    )
    args.steps_per_quarter = corpus.steps_per_quarter
    rolls = [roll for roll in corpus.rolls if len(roll) > 1]
    if len(rolls) < 3:
        raise ValueError(
            f"The folder {str(args.midi_dir)!r} holds {len(rolls)} MIDI file(s) of two "
            "steps or more; training, validation and test need one each, so 3."
        )
    order = np.random.default_rng(args.seed).permutation(len(rolls))
    held_out = max(1, len(rolls) // 5)
    test, valid, train = np.split(order, [held_out, 2 * held_out])
    return tuple([rolls[i] for i in part] for part in (train, valid, test))


def describe(data: bach_chorales.Splits) -> dict:
    for part, rolls in zip(("training", "validation", "test"), data, strict=True):
        print(f"{part}: {len(rolls)} pieces, {sum(map(len, rolls)):,} steps")
    return {
        "sequences": [len(part) for part in data],
        "steps": [sum(map(len, part)) for part in data],
    }


def datasets(
    args: argparse.Namespace, data: bach_chorales.Splits, **options: Any
) -> tuple:
    """For training, in sequences of --sequence-length; the rest in whole pieces."""
    chorales = args.dataset == "bach" and args.midi_dir is None
    return music.batches(
        data,
        args.batch_size,
        args.seed,
        args.sequence_length,
        max_shapes=MAX_SHAPES_OF_CHORALES if chorales else music.MAX_SHAPES,
        **options,
    )


def train_cell(
    name: str, args: argparse.Namespace, data: bach_chorales.Splits, run: Path
) -> tuple[dict, dict]:
    """Trains one cell; returns its row of the table and its learning curves."""
    model = comparison.build(name, args, *music.likelihood())
    picture = callbacks.PianoRollImage(run / name, data[2][0], every=10)
    parts = datasets(args, data)
    result = comparison.train(model, args, parts, run / name, [picture])
    write_continuation(model, data[2][0], args, run / name)
    return result


def train_joint(
    args: argparse.Namespace, data: bach_chorales.Splits, run: Path
) -> tuple[dict, dict]:
    """Trains the model of whole frames, as `train_cell` does."""
    settings = comparison.Settings.of(args)
    chosen = {"units": args.units or JOINT["units"]}
    chosen["epochs"] = min(JOINT["epochs"], args.epochs)
    settings = dataclasses.replace(settings, decay="cosine", **(JOINT | chosen))
    published = args.midi_dir is None and args.dataset in PUBLISHED
    in_c = {"transpose": "C"} if published else {}  # as those sets are
    encoding = keras_gated.RollEncoding(args.steps_per_quarter, **in_c)
    model = comparison.build_joint(settings, encoding)
    parts = datasets(args, data, teacher_forcing=True)
    result = comparison.train(model, settings, parts, run / model.name)
    write_continuation(model, data[2][0], args, run / model.name)
    return result


def write_continuation(
    model: keras.Model, roll: np.ndarray, args: argparse.Namespace, folder: Path
) -> None:
    """Writes the beginning of a test piece and the model's continuation of it."""
    bar = math.ceil(QUARTERS_A_BAR * args.steps_per_quarter)
    primer = roll[: PRIMER_BARS * bar]
    continuation = keras_gated.generation.generate(
        model, primer, CONTINUATION_BARS * bar, seed=args.seed
    )
    whole = np.concatenate([primer, continuation])
    midi.write(whole, folder / "continuation.mid", args.steps_per_quarter)
    title = f"{comparison.title_of(model.name)}: a test piece, continued from the line"
    axes = piano_roll.plot(whole, title=title)
    axes.axvline(len(primer) - 0.5, color="tab:red")
    axes.figure.savefig(folder / "continuation.png", dpi=120)


def main() -> int:
    args = parse_arguments()

    def train(name: str, *where: Any) -> tuple[dict, dict]:
        if name == comparison.JOINT:
            return train_joint(args, *where)
        return train_cell(name, args, *where)

    return comparison.run_all(
        args,
        lambda: load_music(args),
        describe,
        train,
        COLUMNS,
        more=[comparison.JOINT] * args.joint,
    )


if __name__ == "__main__":
    sys.exit(main())
