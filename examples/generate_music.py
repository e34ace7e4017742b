r"""Goes on with a piece of music, or harmonizes it: your MIDI file stays as it is.

    python examples/generate_music.py --model runs/polyphonic_music/.../best.keras \
        --midi tune.mid --output continued --bars 16 --candidates 3
    python examples/generate_music.py --model runs/polyphonic_music/.../best.keras \
        --midi quartet.mid --keep Violin --output harmonized

writes, for each candidate, the MIDI file with every message of the original and new
notes in its tracks, its sound and a picture, and a page with all of them,
`continued.html`. `make demo` trains such models.
"""

import argparse
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import quiet  # noqa: F401
import keras
import music_page
import numpy as np
from model_file import load_model

import keras_gated
from keras_gated.datasets import audio, midi, piano_roll

BARS = 16
SAMPLING_RATE, PAGE_RATE = 44_100, 22_050
"""Of the sound, and of that on the page, which is to stay small."""
OLD = 0.4
"""The shade of what was there."""


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
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
        help="where to write: endings are added (default: the MIDI file's name and "
        "-continued, in this folder)",
    )
    going_on = parser.add_argument_group("to go on")
    going_on.add_argument(
        "--bars",
        type=int,
        metavar="N",
        help=f"to add, of the meter of the piece (default: {BARS})",
    )
    going_on.add_argument(
        "--primer-bars",
        type=int,
        metavar="N",
        help="go on after so many bars of the piece (default: after all of it)",
    )
    going_on.add_argument(
        "--only-new", action="store_true", help="write the continuation alone"
    )
    going_on.add_argument(
        "--repeat-drums",
        type=int,
        metavar="N",
        help="the drums repeat their last N bars (default: they are silent)",
    )
    harmony = parser.add_argument_group(
        "to harmonize",
        "TRACK is the number or the name of a track, or the number of a track and a "
        "channel, such as 0:10. Notes of other tracks than those kept, or of those "
        "replaced, are found anew; if all are kept, in a new track.",
    )
    harmony.add_argument("--keep", nargs="+", metavar="TRACK")
    harmony.add_argument("--replace", nargs="+", metavar="TRACK")
    harmony.add_argument(
        "--particles",
        type=int,
        default=32,
        metavar="N",
        help="so many are tried at a time, so that what is found fits to what comes "
        "(default: %(default)s)",
    )
    add(
        "--candidates",
        type=int,
        default=1,
        metavar="N",
        help="how many to write, the likeliest first (default: 1)",
    )
    add(
        "--steps-per-quarter",
        type=Fraction,
        metavar="N",
        help="as the model was trained, if its file does not say",
    )
    add(
        "--in-c",
        action="store_true",
        help="the model was trained on music in C, as the published sets are, if its "
        "file does not say",
    )
    add(
        "--temperature",
        type=float,
        default=1.0,
        metavar="X",
        help="below 1 the model keeps to what is likely (default: 1)",
    )
    add(
        "--seed",
        type=int,
        metavar="N",
        help="of the music (default: another each time)",
    )
    add(
        "--sound-font",
        type=Path,
        metavar="FILE",
        help="an .sf2 file to play with (default: the one of pretty_midi)",
    )
    add("--musicxml", action="store_true", help="write MusicXML, too")
    return parser.parse_args(argv)


def encoding_of(
    model: keras.Model, args: argparse.Namespace
) -> keras_gated.RollEncoding:
    """How music becomes frames: as the model says, or else the command."""
    found, asked = keras_gated.RollEncoding.of(model), args.steps_per_quarter
    if found is None and asked is None:
        raise ValueError(
            f"{str(args.model)!r} does not say on which grid it was trained; give "
            "--steps-per-quarter (JSB Chorales: 1, the other published sets: 2)."
        )
    if found is None:
        return keras_gated.RollEncoding(asked, "C" if args.in_c else 0)
    if asked not in (None, found.steps_per_quarter):
        raise ValueError(
            f"{str(args.model)!r} was trained with {found.steps_per_quarter} steps per "
            f"quarter, not {asked}; leave out --steps-per-quarter."
        )
    if args.in_c and found.transpose != "C":
        raise ValueError(
            f"{str(args.model)!r} was not trained on music in C; leave out --in-c."
        )
    return found


class New(NamedTuple):
    """What the model made."""

    rolls: list[np.ndarray]
    """The new notes of each candidate, the likeliest first."""
    likelihoods: list[float]
    """Their log-likelihoods by step."""
    seam: midi.Seam | None
    """Where they begin; `None` if they are in the midst of the piece."""
    replaced: list[midi.Voice]
    """Whose notes they take the places of."""


def check(args: argparse.Namespace) -> None:
    harmonize = args.keep or args.replace
    going_on = (args.bars, args.primer_bars, args.repeat_drums)
    if harmonize and (args.only_new or any(x is not None for x in going_on)):
        raise ValueError(
            "--keep and --replace find other notes for the whole piece; leave out "
            "--bars, --primer-bars, --only-new and --repeat-drums."
        )
    for name in ("bars", "primer_bars", "candidates", "particles"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be 1 or more.")
    if (args.repeat_drums or 0) < 0:
        raise ValueError("--repeat-drums must be 0 or more.")
    if args.midi.is_dir():
        raise ValueError(f"{str(args.midi)!r} is a folder; --midi takes a file.")
    if args.sound_font and not args.sound_font.is_file():
        raise ValueError(f"There is no sound font {str(args.sound_font)!r}.")


def check_output(output: str) -> None:
    """Whether it can be written, before the model works for nothing."""
    folder = Path(output).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"Nothing can be written to {str(folder)!r} ({error.strerror}); choose "
            "another --output."
        ) from error


def generate(
    model: keras.Model, piece: midi.Piece, args: argparse.Namespace
) -> tuple[New, keras_gated.RollEncoding]:
    encoding = encoding_of(model, args)
    if not piece.pitched:
        raise ValueError(
            f"{piece.path!r} holds no notes but drums, which the model does not play; "
            "choose a file with a pitched track."
        )
    options = midi.Options(
        encoding.steps_per_quarter,
        transpose=encoding.transpose,
        onsets=encoding.onsets,
        max_seconds=None,
    )
    reading = midi.read_all(piece.path, options, piece.content)
    for finding in reading.findings:
        print(f"{piece.path}: {finding}", file=sys.stderr)
    settings = {
        "temperature": args.temperature,
        "seed": args.seed,
        "return_log_likelihood": True,
    }
    if args.keep or args.replace:
        return harmonize(model, piece, args, reading, encoding, settings), encoding
    return go_on(model, piece, args, reading, encoding, settings), encoding


def told(
    piece: midi.Piece,
    encoding: keras_gated.RollEncoding,
    reading: midi.Reading,
    steps: int,
    before: int | None = None,
) -> np.ndarray | None:
    """What the model is told of each step, if it wants to be: also beyond the end."""
    if not encoding.features:
        return None
    where = encoding.steps_per_quarter, steps, reading.semitones, before
    return piece.score.features(encoding.features, *where)


def go_on(
    model: keras.Model,
    piece: midi.Piece,
    args: argparse.Namespace,
    reading: midi.Reading,
    encoding: keras_gated.RollEncoding,
    settings: dict,
) -> New:
    steps = encoding.steps_per_quarter
    seam = midi.find_seam(piece, steps, args.bars or BARS, args.primer_bars)
    if seam.left_out:
        print(f"{piece.path}: {seam.left_out} notes after bar {seam.bar} are left out.")
    if seam.meter_left_out:
        old, new = ("/".join(map(str, m)) for m in (seam.meter, seam.meter_left_out))
        print(
            f"{piece.path}: the meter changes to {new} where the continuation begins, "
            f"which goes on in {old}; --primer-bars {seam.bar + 1} takes {new} in."
        )
    known = reading.roll[: seam.step]
    primer = np.zeros((seam.step, known.shape[1]), np.uint8)
    primer[: len(known)] = known
    if not primer.any():
        raise ValueError(
            f"{piece.path!r} holds no note of half a step or longer before bar "
            f"{seam.bar + 1}; give more --primer-bars, or a model with a finer grid."
        )
    batch = np.repeat(primer[None], args.candidates, axis=0)
    before = seam.tick if seam.cuts else None
    features = told(piece, encoding, reading, seam.step + seam.steps, before)
    rolls, likelihoods = keras_gated.generation.generate(
        model, batch, seam.steps, features=features, **settings
    )
    return in_order(rolls, likelihoods, reading.semitones, seam, [])


def harmonize(
    model: keras.Model,
    piece: midi.Piece,
    args: argparse.Namespace,
    reading: midi.Reading,
    encoding: keras_gated.RollEncoding,
    settings: dict,
) -> New:
    if not isinstance(model.layers[-1], keras_gated.NADE):
        raise ValueError(
            f"{str(args.model)!r} draws every key by itself, and cannot fit some to "
            "others; --keep and --replace need a model that ends in keras_gated.NADE."
        )
    named_kept, named_replaced = (
        {voice.place for voice in piece.choose(names or [])}
        for names in (args.keep, args.replace)
    )
    for voice in piece.pitched:
        if voice.place in named_kept & named_replaced:
            raise ValueError(f"The track {voice} is to be kept and to be replaced.")
    replaced, kept = [], []
    for voice in piece.pitched:
        is_replaced = (
            voice.place in named_replaced
            if named_replaced
            else voice.place not in named_kept
        )
        (replaced if is_replaced else kept).append(voice)
    if not kept:
        raise ValueError("All tracks are to be replaced; name one for --keep.")
    steps, onsets = encoding.steps_per_quarter, encoding.onsets
    fixed = midi.fixed_roll(piece, kept, steps, reading.semitones, onsets)
    start = np.zeros((args.candidates, 1, fixed.shape[1]), np.uint8)  # from silence
    features = told(piece, encoding, reading, len(fixed))
    if features is not None:  # the silent step before has some, too
        features = np.concatenate([features[:1], features])
    settings |= {"fixed": fixed, "particles": args.particles, "features": features}
    rolls, likelihoods = keras_gated.generation.generate(
        model, start, len(fixed), **settings
    )
    rolls = rolls * (fixed != 1)
    return in_order(rolls, likelihoods, reading.semitones, None, replaced)


def in_order(
    rolls: np.ndarray,
    likelihoods: np.ndarray,
    semitones: int,
    seam: midi.Seam | None,
    replaced: list[midi.Voice],
) -> New:
    """The likeliest first, as high as the piece."""
    order = np.argsort(-likelihoods, kind="stable")
    return New(
        [piano_roll.transpose(rolls[n], -semitones) for n in order],
        [float(likelihoods[n] / rolls.shape[1]) for n in order],
        seam,
        replaced,
    )


def write(
    piece: midi.Piece,
    new: New,
    number: int,
    stem: str,
    args: argparse.Namespace,
    encoding: keras_gated.RollEncoding,
) -> music_page.Candidate:
    """Writes a candidate, and returns what the page shows of it."""
    roll, path = new.rolls[number], f"{stem}.mid"
    steps = encoding.steps_per_quarter
    if new.seam is None:
        begin, first = 0, 0
        midi.replace_voices(piece, roll, new.replaced, path, steps)
    else:
        begin, first = new.seam.tick, new.seam.step
        options = {"only_new": args.only_new, "repeat_drums": args.repeat_drums or 0}
        midi.continue_piece(piece, roll, new.seam, path, steps, **options)
    if args.only_new:
        begin, first = 0, 0
    sound = midi.synthesize(path, SAMPLING_RATE, args.sound_font)
    audio.write(sound, f"{stem}.wav", SAMPLING_RATE)
    if args.musicxml:
        midi.write_musicxml(path, f"{stem}.musicxml", Fraction(steps).numerator)
    made = midi.read_piece(path)
    title = f"{number + 1}: {new.likelihoods[number]:.2f} nats a step"
    options = midi.Options(steps, onsets=encoding.onsets, max_seconds=None)
    whole = midi.read_all(path, options).roll if made.pitched else roll
    shades = np.zeros((max(len(whole), first + len(roll)), roll.shape[1]))
    shades[: len(whole)] = whole
    shades[:, : piano_roll.KEYS] *= OLD
    shades[first : first + len(roll)][roll > 0] = 1
    axes = piano_roll.plot(shades, title=f"{args.midi.name} and {args.model.name}")
    if new.seam is not None:
        axes.axvline(first - 0.5, color="tab:red")
    axes.figure.savefig(f"{stem}.png", dpi=120)
    sound, rate = audio.read(f"{stem}.wav", PAGE_RATE)
    with tempfile.TemporaryDirectory() as folder:
        audio.write(sound, f"{folder}/sound.mp3", rate)
        small = Path(folder, "sound.mp3").read_bytes()
    return page_of(made, title, begin, new, len(piece.tracks), small)


def page_of(
    made: midi.Piece, title: str, begin: int, new: New, tracks: int, sound: bytes
) -> music_page.Candidate:
    """What the page shows of a candidate."""
    replaced = {voice.place for voice in new.replaced}
    notes = []
    for number, voice in enumerate(made.voices):
        mine = voice.place in replaced or voice.track >= tracks
        seconds = made.score.seconds(voice.notes[:, :2])
        for (start, end), (tick, _, pitch, _) in zip(
            seconds.tolist(), voice.notes.tolist(), strict=True
        ):
            is_new = mine if new.seam is None else tick >= begin
            notes.append(music_page.Note(start, end, pitch, number, is_new))
    at = float(made.score.seconds(np.array([begin]))[0])
    return music_page.Candidate(title, notes, [*map(str, made.voices)], at, sound)


def make(args: argparse.Namespace, model: keras.Model) -> New:
    """Writes all that the command asks for."""
    begun = time.perf_counter()
    output = str(args.output or f"{args.midi.stem}-continued")
    if output.lower().endswith((".mid", ".midi")):
        output = output.rpartition(".")[0]
    piece = midi.read_piece(args.midi)
    for problem in piece.score.problems:
        print(f"{args.midi}: was repaired: {problem}", file=sys.stderr)
    check_output(output)
    if args.seed is None:
        args.seed = secrets.randbelow(1_000_000)
    new, encoding = generate(model, piece, args)
    candidates = []
    for number in range(args.candidates):
        stem = output if number == 0 else f"{output}-{number + 1}"
        candidates.append(write(piece, new, number, stem, args, encoding))
    about = (
        f"{args.midi.name} and {args.model.name}, --seed {args.seed}, the likeliest "
        "first. Pale is what was there, full what is new."
    )
    music_page.write(Path(f"{output}.html"), args.midi.stem, about, candidates)
    if not all(roll.any() for roll in new.rolls):
        print("The model plays nothing in some; try another --seed or --temperature.")
    what = "harmonized" if new.seam is None else f"from bar {new.seam.bar + 1} on"
    print(
        f"{args.midi.name}, {what}: {len(new.rolls[0])} steps, --seed {args.seed}, in "
        f"{time.perf_counter() - begun:.1f} s: {output}.mid, .wav, .png, .html"
        + (f", and {args.candidates - 1} more" if args.candidates > 1 else "")
    )
    return new


def main() -> int:
    args = parse_arguments()
    try:
        check(args)
        make(args, load_model(args.model))
    except (ValueError, ImportError, OSError) as error:
        print(f"generate_music.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
