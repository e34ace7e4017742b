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
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import quiet  # noqa: F401
import comparison
import keras
import numpy as np
from comparison import music, positive

import keras_gated
from keras_gated import callbacks, distribution
from keras_gated.datasets import (
    bach_chorales,
    jsb_chorales,
    midi,
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
    "epochs": 30,
    "patience": 30,
    "learning_rate": 0.002,
    "head": "tied",
    "dropout": 0.5,
}
"""What the model of whole frames is trained with, besides --weight-noise and --seed."""
FEW_SHAPES = 4
"""The most shapes of batches of the chorales, which have similar lengths, so that more
do not pay; and of the model of whole frames, which is compiled longer for each."""
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
    comparison.add_workers(parser)
    add = parser.add_argument
    add(
        "--steps-per-quarter",
        type=grid,
        metavar="N",
        help="steps per quarter note, of Bach's chorales (default: 2) and MIDI files; "
        "for these also a fraction such as 4/3, or auto: the coarsest grid that keeps "
        "99 %% of the notes (default: auto)",
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


def load_music(args: argparse.Namespace) -> music.Music:
    asked = args.steps_per_quarter
    if args.midi_dir is not None:
        return music.read_folder(args.midi_dir, asked or "auto", args.seed, args.joint)
    if args.dataset == "bach":
        steps = asked or 2
        wide = bach_chorales.load_data(steps, onsets=True)
        rolls = tuple([roll[:, : piano_roll.KEYS] for roll in part] for part in wide)
        return music.Music(rolls, wide, steps, onsets=args.joint)
    module, steps = PUBLISHED[args.dataset]
    rolls = module.load_data(args.data_dir)
    return music.Music(rolls, rolls, steps)


def describe(data: music.Music) -> dict:
    parts = ("training", "validation", "test")
    for part, rolls in zip(parts, data.rolls, strict=True):
        print(f"{part}: {len(rolls)} pieces, {sum(map(len, rolls)):,} steps")
    return {
        "sequences": [len(part) for part in data.rolls],
        "steps": [sum(map(len, part)) for part in data.rolls],
        "steps_per_quarter": str(data.steps_per_quarter),
        "onsets": data.onsets,
        "features": data.kinds,
    }


def encoding_of(
    args: argparse.Namespace, data: music.Music, **options: Any
) -> keras_gated.RollEncoding:
    """What a model file says about the music."""
    published = args.midi_dir is None and args.dataset in PUBLISHED
    in_c = {"transpose": "C"} if published else {}  # as those sets are
    return keras_gated.RollEncoding(data.steps_per_quarter, **in_c, **options)


def datasets(args: argparse.Namespace, rolls: music.Rolls, **options: Any) -> tuple:
    """For training, in sequences of --sequence-length; the rest in whole pieces."""
    chorales = args.dataset == "bach" and args.midi_dir is None
    shapes = FEW_SHAPES if chorales else music.MAX_SHAPES
    return music.batches(
        rolls,
        args.batch_size,
        args.seed,
        args.sequence_length,
        **{"max_shapes": shapes, **options},
    )


def train_cell(
    name: str, args: argparse.Namespace, data: music.Music, run: Path
) -> tuple[dict, dict]:
    """Trains one cell; returns its row of the table and its learning curves."""
    model = comparison.build(
        name, args, *music.likelihood(), encoding=encoding_of(args, data)
    )
    workers, test_piece = distribution.initialize(), data.rolls[2][0]
    parts = datasets(args, data.rolls)
    watchers = [
        callbacks.TerminateOnNaN(parts[0]),
        callbacks.PianoRollImage(workers.folder(run / name), test_piece, every=10),
    ]
    result = comparison.train(model, args, parts, run / name, watchers)
    if workers.is_first:
        write_continuation(model, test_piece, data, args.seed, run / name)
    return result


def train_joint(
    args: argparse.Namespace, data: music.Music, run: Path
) -> tuple[dict, dict]:
    """Trains the model of whole frames, as `train_cell` does."""
    settings = comparison.Settings.of(args)
    chosen = {"units": args.units or JOINT["units"]}
    chosen["epochs"] = min(JOINT["epochs"], args.epochs)
    settings = dataclasses.replace(settings, decay="cosine", **(JOINT | chosen))
    encoding = encoding_of(args, data, onsets=data.onsets, features=data.kinds)
    model = comparison.build_joint(settings, encoding)
    rolls, told = data.of_joint, data.features
    parts = datasets(
        args, rolls, teacher_forcing=True, features=told, max_shapes=FEW_SHAPES
    )
    workers, folder = distribution.initialize(), run / model.name
    known = told[2][0] if told else None
    watchers = [
        callbacks.TerminateOnNaN(parts[0]),
        callbacks.PianoRollImage(workers.folder(folder), rolls[2][0], 10, known),
    ]
    result = comparison.train(model, settings, parts, folder, watchers)
    if workers.is_first:
        write_continuation(model, rolls[2][0], data, args.seed, folder, data.kinds)
    return result


def write_continuation(
    model: keras.Model,
    roll: np.ndarray,
    data: music.Music,
    seed: int,
    folder: Path,
    told: Sequence[str] = (),
) -> None:
    """Writes the beginning of a test piece and the model's continuation of it."""
    bar = math.ceil(QUARTERS_A_BAR * data.steps_per_quarter)
    primer, steps = roll[: PRIMER_BARS * bar], CONTINUATION_BARS * bar
    features = data.continued(len(primer), len(primer) + steps) if told else None
    continuation = keras_gated.generation.generate(
        model, primer, steps, seed=seed, features=features
    )
    whole = np.concatenate([primer, continuation])
    midi.write(whole, folder / "continuation.mid", data.steps_per_quarter)
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
