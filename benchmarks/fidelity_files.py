"""The files that fidelity.py continues and harmonizes."""

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path

import mido
import numpy as np

CORPUS = [
    "bach/bwv111.6.mxl",
    "bach/bwv121.6.mxl",
    "bach/bwv259.mxl",
    "bach/bwv350.mxl",
    "bach/bwv377.mxl",
    "beethoven/opus18no1/movement3.krn",
    "haydn/opus1no1/movement2.mxl",
    "haydn/opus1no1/movement3.mxl",
    "haydn/opus1no1/movement4.mxl",
    "mozart/k155/movement1.mxl",
    "mozart/k156/movement3.mxl",
    "schumann_robert/opus41no1/movement2.mxl",
    "corelli/opus3no1/1grave.xml",
    "joplin/maple_leaf_rag.mxl",
    "weber/concertino_clarinet.mxl",
    "handel/rinaldo/Lascia_chio_pianga.mxl",
    "verdi/laDonnaEMobile.mxl",
    "schumann_robert/opus48no2.mxl",
    "johnson_j_r/lift_every_voice.mxl",
    "leadSheet/fosterBrownHair.mxl",
    "monteverdi/madrigal.5.4.mxl",
    "palestrina/Kyrie_98_b.krn",
    "schoenberg/opus19/movement6.mxl",
]
"""Chorales, quartets, a trio sonata, a rag, a concertino, songs, a madrigal, a mass and
a piano piece."""
TUNES = 8
QUARTER = 480
PEDAL, VOLUME, DRUMS = 64, 7, 9

Row = list[tuple[int, mido.Message | mido.MetaMessage]]
"""The messages of a track with their ticks."""


def of_corpus(folder: Path) -> list[Path]:
    """Writes pieces of music21's corpus with their meters and tempi."""
    from music21 import corpus

    paths = []
    for name in CORPUS:
        path = folder / f"{Path(name).with_suffix('').as_posix().replace('/', '_')}.mid"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            corpus.parse(name).write("midi", path)
        paths.append(path)
    return paths


def of_folder(folder: Path) -> list[Path]:
    """Some files of a folder, at equal distances in the order of their names."""
    paths = sorted(folder.rglob("*.mid"))
    return paths[:: max(1, len(paths) // TUNES)][:TUNES]


def made_here(folder: Path) -> list[Path]:
    """Writes files with what the corpus has not."""
    paths = []
    for number, (name, make) in enumerate(MADE.items()):
        path = folder / f"made_{name}.mid"
        make(np.random.default_rng(number)).save(path)
        paths.append(path)
    return paths


def meter(over: int, under: int, tick: int = 0) -> Row:
    about = {"numerator": over, "denominator": under}
    return [(tick, mido.MetaMessage("time_signature", **about))]


def tempi(*changes: tuple[int, int]) -> Row:
    return [
        (tick, mido.MetaMessage("set_tempo", tempo=tempo)) for tick, tempo in changes
    ]


def line(
    random: np.random.Generator,
    end: int,
    center: int,
    channel: int,
    lengths: Sequence[int] = (240, 480, 960),
    chord: int = 1,
    early: int = 0,
) -> Row:
    """A voice that wanders about a pitch to a tick, with some rests."""
    row: Row = [(0, mido.Message("program_change", channel=channel, program=center))]
    now, pitch = 0, center
    while now < end:
        length = min(int(random.choice(lengths)), end - now)
        pitch += int(random.integers(-4, 5)) + (center - pitch) // 4
        for above in (0, 4, 7)[:chord] if random.random() < 0.9 else ():
            about = {"channel": channel, "note": pitch + above}
            loud = int(random.integers(50, 110))
            row.append((now, mido.Message("note_on", velocity=loud, **about)))
            # A release as most sequencers write it, which lets the status run.
            row.append(
                (now + length - early, mido.Message("note_on", velocity=0, **about))
            )
        now += length
    return row


def beat(end: int, every: int = 240) -> Row:
    row: Row = []
    for number, tick in enumerate(range(0, end, every)):
        about = {"channel": DRUMS, "note": (36, 42)[number % 2]}
        row.append((tick, mido.Message("note_on", velocity=90, **about)))
        row.append((tick + 60, mido.Message("note_off", **about)))
    return row


def control(number: int, *changes: tuple[int, int], channel: int = 0) -> Row:
    about = {"channel": channel, "control": number}
    return [(t, mido.Message("control_change", value=v, **about)) for t, v in changes]


def named(name: str, *rows: Row) -> Row:
    title = (0, mido.MetaMessage("track_name", name=name))
    return [title, *itertools.chain(*rows)]


def file_of(*tracks: Row, kind: int = 1) -> mido.MidiFile:
    made = mido.MidiFile(type=kind, ticks_per_beat=QUARTER)
    for row in tracks:
        track, now = mido.MidiTrack(), 0
        for tick, message in sorted(
            row, key=lambda event: (event[0], strikes(event[1]))
        ):
            track.append(message.copy(time=tick - now))
            now = tick
        made.tracks.append(track)
    return made


def strikes(message: mido.Message) -> bool:
    return message.type == "note_on" and message.velocity > 0


def band(random: np.random.Generator) -> mido.MidiFile:
    """Drums, a bass and a piano of chords."""
    end = 8 * 4 * QUARTER
    return file_of(
        [*meter(4, 4), *tempi((0, 600_000))],
        named("Bass", line(random, end, 36, 1)),
        named("Piano", line(random, end, 60, 2, (480, 960), chord=3)),
        named("Drums", beat(end)),
    )


def pedalled(random: np.random.Generator) -> mido.MidiFile:
    """A waltz whose pedal is down at the end, and played a little early."""
    end = 10 * 3 * QUARTER
    pedal = control(PEDAL, (0, 127), (1400, 0), (1440, 127), (end - 100, 100))
    right = line(random, end, 72, 0, early=17)
    left = line(random, end, 48, 0, (480,), chord=3, early=30)
    return file_of([*meter(3, 4), *tempi((0, 400_000))], [*right, *pedal], left)


def hurrying(random: np.random.Generator) -> mido.MidiFile:
    """Six eighths, which get faster to the end."""
    end = 8 * 3 * QUARTER
    steps = [(tick, 700_000 - 20 * tick) for tick in range(0, end, 720)]
    voices = [line(random, end, 50 + 8 * n, n) for n in range(3)]
    return file_of([*meter(6, 8), *tempi(*steps)], *voices)


def changing(random: np.random.Generator) -> mido.MidiFile:
    """Five quarters, then three, then seven eighths."""
    at, then = 4 * 5 * QUARTER, 4 * 5 * QUARTER + 4 * 3 * QUARTER
    end = then + 4 * 7 * QUARTER // 2
    head = [*meter(5, 4), *meter(3, 4, at), *meter(7, 8, then)]
    head += [(at, mido.MetaMessage("key_signature", key="Eb"))]
    return file_of(head, *(line(random, end, 45 + 12 * n, n) for n in range(2)))


def sung(random: np.random.Generator) -> mido.MidiFile:
    """Words, markers, changes of instrument and volume, and bends."""
    end = 8 * 4 * QUARTER
    voice = line(random, end, 67, 3)
    words = [
        (tick, mido.MetaMessage("lyrics", text=f"la{number}"))
        for number, tick in enumerate(range(0, end, 480))
    ]
    marker = [(end // 2, mido.MetaMessage("marker", text="chorus"))]
    bends = [
        (tick, mido.Message("pitchwheel", channel=3, pitch=(tick % 700) * 8))
        for tick in range(60, end, 210)
    ]
    other = [(end // 2, mido.Message("program_change", channel=3, program=73))]
    other += control(VOLUME, (0, 100), (end // 2, 60), (end - 240, 20), channel=3)
    return file_of(
        [*meter(4, 4), *marker],
        named("Voice", voice, words, bends, other),
        named("Guitar", line(random, end, 55, 4, (960,), chord=3)),
    )


def held(random: np.random.Generator) -> mido.MidiFile:
    """Keys that are never released, of two tracks that share a channel."""
    end = 6 * 4 * QUARTER
    last = [(end - 480, mido.Message("note_on", note=n, velocity=70)) for n in (40, 64)]
    upper, lower = line(random, end - 480, 67, 0), line(random, end - 480, 52, 0)
    return file_of(meter(2, 2), [*upper, last[1]], [*lower, last[0]])


def single(random: np.random.Generator) -> mido.MidiFile:
    """All in one track of several channels, in format 0."""
    end = 8 * 4 * QUARTER
    voices = [line(random, end, 48 + 10 * n, n) for n in range(3)]
    row = itertools.chain(meter(4, 4), tempi((0, 450_000)), *voices, beat(end, 480))
    return file_of([*row], kind=0)


def unison(random: np.random.Generator) -> mido.MidiFile:
    """Four voices of one channel that often meet, with an upbeat."""
    end = QUARTER + 8 * 4 * QUARTER
    head = [*meter(1, 4), *meter(4, 4, QUARTER), *tempi((0, 500_000), (9600, 800_000))]
    voices = [line(random, end, 57 + 2 * n, 0, (240, 480)) for n in range(4)]
    return file_of(head, *voices)


MADE = {
    make.__name__: make
    for make in (band, pedalled, hurrying, changing, sung, held, single, unison)
}
