r"""Goes on with a piece of music: a saved model continues a MIDI file.

    python examples/generate_music.py --model runs/polyphonic_music/.../best.keras \
        --midi tune.mid --output continued

writes `continued.mid`, `continued.wav` and `continued.png`: the piece, and from the
red line on the model. `make demo` trains such models.
"""

import argparse
import math
import sys
from fractions import Fraction
from pathlib import Path

import quiet  # noqa: F401
import keras
import numpy as np

import keras_gated
from keras_gated.datasets import midi, piano_roll

QUARTERS_A_BAR = 4


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="FILE", help="a .keras file")
    add("--midi", type=Path, required=True, metavar="FILE", help="what to go on with")
    add(
        "--output",
        type=Path,
        metavar="STEM",
        help="where to write, without ending (default: the MIDI file's name and "
        "-continued, in this folder)",
    )
    add("--bars", type=int, default=16, metavar="N", help="to add (default: 16)")
    add(
        "--primer-bars",
        type=int,
        metavar="N",
        help="go on after so many bars of the piece (default: after all of it)",
    )
    add(
        "--steps-per-quarter",
        type=Fraction,
        default=Fraction(2),
        metavar="N",
        help="as the model was trained (default: 2; JSB Chorales: 1)",
    )
    add(
        "--temperature",
        type=float,
        default=1.0,
        metavar="X",
        help="below 1 the model keeps to what is likely (default: 1)",
    )
    add("--seed", type=int, metavar="N", help="makes the music repeatable")
    add("--tempo", type=float, default=90.0, help="quarters a minute (default: 90)")
    add(
        "--sound-font",
        type=Path,
        metavar="FILE",
        help="an .sf2 file for FluidSynth to play with (default: sine tones)",
    )
    return parser.parse_args()


def load_model(path: Path) -> keras.Model:
    if not path.is_file():
        raise ValueError(f"There is no model {str(path)!r}; `make demo` trains some.")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # whatever a damaged archive leads to
        raise ValueError(f"{str(path)!r} is no model that loads: {error}") from error


def main() -> int:
    args = parse_arguments()
    output = args.output or Path(f"{args.midi.stem}-continued")
    try:
        if args.bars < 1 or (args.primer_bars is not None and args.primer_bars < 1):
            raise ValueError("--bars and --primer-bars must be 1 or more.")
        model = load_model(args.model)
        primer = midi.read(args.midi, args.steps_per_quarter)
        bar = math.ceil(QUARTERS_A_BAR * args.steps_per_quarter)
        if args.primer_bars is not None:
            primer = primer[: args.primer_bars * bar]
        continuation = keras_gated.generation.generate(
            model, primer, args.bars * bar, args.temperature, args.seed
        )
        music = np.concatenate([primer, continuation])
        settings = (args.steps_per_quarter, args.tempo)
        midi.write(music, f"{output}.mid", *settings)
        midi.write_wav(music, f"{output}.wav", *settings, sound_font=args.sound_font)
        axes = piano_roll.plot(
            music, title=f"{args.midi.name}, and from the line on {args.model.name}"
        )
        axes.axvline(len(primer) - 0.5, color="tab:red")
        axes.figure.savefig(f"{output}.png", dpi=120)
    except (ValueError, ImportError, OSError) as error:
        print(f"generate_music.py: error: {error}", file=sys.stderr)
        return 2
    print(
        f"{len(primer)} steps of {args.midi.name} and {len(continuation)} of the "
        f"model: {output}.mid, {output}.wav, {output}.png"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
