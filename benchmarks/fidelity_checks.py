"""Compares a MIDI file with what was made of it, by mido alone.

Nothing of the library is used here: bar lines, notes and what sounds are found anew.
Each check returns what is wrong, one line for each fault; none if nothing is.
"""

import copy
import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import mido

DRUMS, PEDAL = 9, 64
OF_NOTES = ("note_on", "note_off", "polytouch", "aftertouch", "pitchwheel")
OF_THE_PIECE = ("set_tempo", "time_signature", "key_signature")
OVERHANG = Fraction(1, 8)
"""How much of a quarter note the last notes may sound on into the next bar."""
MOST = 5
"""So many messages are named when some are wrong."""

Event = tuple[int, mido.Message | mido.MetaMessage]
Place = tuple[int, int]
"""The number of a track, and a channel."""


class Note(NamedTuple):
    """A note of one track and channel."""

    track: int
    channel: int
    pitch: int
    start: int
    end: int | None
    """`None` if it is never released."""

    @property
    def place(self) -> Place:
        return self.track, self.channel


class File:
    """The messages of a MIDI file with their ticks, without the ends of tracks."""

    def __init__(self, path: Path) -> None:
        file = mido.MidiFile(path)
        self.type, self.quarter = file.type, file.ticks_per_beat
        self.tracks: list[list[Event]] = []
        for track in file.tracks:
            ticks = itertools.accumulate(message.time for message in track)
            pairs = zip(ticks, track, strict=True)
            events = [(tick, message.copy(time=0)) for tick, message in pairs]
            self.tracks.append([e for e in events if e[1].type != "end_of_track"])
        self.notes = [*notes_of(self.tracks)]
        self.cut: int | None = None

    @property
    def places(self) -> list[Place]:
        """Where there are pitched notes, in order."""
        return sorted({note.place for note in self.notes if note.channel != DRUMS})

    @property
    def end(self) -> int:
        """The tick at which the last note ends; half a quarter if it is held on."""
        ends = (
            note.start + self.quarter // 2 if note.end is None else note.end
            for note in self.notes
        )
        return max(ends, default=0)

    def of_the_piece(self) -> list[tuple]:
        """Tempi, meters and keys, in the order of time."""
        events = itertools.chain(*self.tracks)
        return sorted(
            ((tick, str(m)) for tick, m in events if m.type in OF_THE_PIECE),
        )

    def bar_lines(self) -> Iterator[Fraction]:
        meters = {0: (4, 4)}
        for tick, message in itertools.chain(*self.tracks):
            if message.type == "time_signature":
                meters[tick] = message.numerator, message.denominator
        changes = sorted(meters.items())
        for (tick, (over, under)), following in itertools.zip_longest(
            changes, changes[1:]
        ):
            line = Fraction(tick)
            while following is None or line < following[0]:
                yield line
                line += Fraction(4 * self.quarter * over, under)

    def bars(self, late: Fraction = Fraction(0)) -> int:
        """How many bars have music, which may end a little `late` (ticks)."""
        end = self.end - late
        lines = itertools.takewhile(lambda line: line < end, self.bar_lines())
        return sum(1 for _ in lines)

    def seam(self, step: Fraction, bars: int) -> tuple[int, int]:
        """The tick of the first bar line at or after the end, or of the cut.

        Returns:
            The tick, and that of the bar line so many bars later.
        """
        late = min(step / 2, OVERHANG * self.quarter)
        bar = self.bars(late) if self.cut is None else self.cut
        lines = itertools.islice(self.bar_lines(), bar, bar + bars + 1)
        first, *_, last = map(round, lines)
        return first, last

    def before(self, bar: int) -> "File":
        """What is before a bar line: as a cut leaves it, with the releases at it."""
        tick = round(next(itertools.islice(self.bar_lines(), bar, None)))
        left = copy.copy(self)
        left.cut = bar
        left.tracks = [
            [e for e in track if e[0] < tick or (e[0] == tick and is_release(e[1]))]
            for track in self.tracks
        ]
        left.notes = [*notes_of(left.tracks)]
        return left


def is_release(message: mido.Message) -> bool:
    return message.type == "note_off" or (
        message.type == "note_on" and message.velocity == 0
    )


def notes_of(tracks: list[list[Event]]) -> Iterator[Note]:
    """The notes by track and channel; one ends when its key is struck again."""
    for number, track in enumerate(tracks):
        sounding: dict[tuple[int, int], int] = {}
        for tick, message in track:
            if message.type not in ("note_on", "note_off"):
                continue
            key = message.channel, message.note
            if (start := sounding.pop(key, None)) is not None and start < tick:
                yield Note(number, *key, start, tick)
            if not is_release(message):
                sounding[key] = tick
        for key, start in sounding.items():
            yield Note(number, *key, start, None)


def heard(tracks: Iterable[list[Event]]) -> dict[tuple[int, int], set[tuple]]:
    """When keys sound as a synthesizer plays them, which knows channels and no tracks.

    A key that several tracks hold is off when the first of them releases it.
    """
    events = [
        (tick, number, place, message)
        for number, track in enumerate(tracks)
        for place, (tick, message) in enumerate(track)
        if message.type in ("note_on", "note_off")
    ]
    since: dict[tuple[int, int], int] = {}
    found: dict[tuple[int, int], set[tuple]] = {}
    for tick, *_, message in sorted(events, key=lambda event: event[:3]):
        key = message.channel, message.note
        if (start := since.pop(key, None)) is not None and start < tick:
            found.setdefault(key, set()).add((start, tick))
        if not is_release(message):
            since[key] = tick
    return found


def added(old: list[Event], new: list[Event]) -> tuple[list[Event], list[Event]]:
    """What a track has more than another, and what of the other it has not in order."""
    more, rest = [], iter(old)
    awaited = next(rest, None)
    for event in new:
        if event == awaited:
            awaited = next(rest, None)
        else:
            more.append(event)
    return more, [] if awaited is None else [awaited, *rest]


def named(events: Iterable) -> str:
    """Some of the messages, in a line."""
    events = [*events]
    some = ", ".join(str(event) for event in events[:MOST])
    return some + f" and {len(events) - MOST} more" * (len(events) > MOST)


def of_both(old: File, new: File, more_tracks: int = 0) -> dict[str, list[str]]:
    """What must be so however a file was made from another."""
    faults: dict[str, list[str]] = {"tempi, meters and keys": [], "tracks": []}
    if old.of_the_piece() != new.of_the_piece():
        differing = set(old.of_the_piece()) ^ set(new.of_the_piece())
        faults["tempi, meters and keys"].append(f"differ: {named(sorted(differing))}")
    shape = len(old.tracks) + more_tracks, old.quarter
    if (len(new.tracks), new.quarter) != shape:
        faults["tracks"].append(f"{len(new.tracks)} of {shape[0]}")
    return faults


def held(notes: list[Note]) -> list[str]:
    """The notes that are never released."""
    hanging = [note for note in notes if note.end is None]
    return [f"held: {named(hanging)}"] if hanging else []


def whole(new: File, notes: list[Note]) -> list[str]:
    """Whether notes sound as long as they are written, all tracks together."""
    sound = heard(new.tracks)
    cut = [
        note
        for note in notes
        if (note.start, note.end) not in sound.get((note.channel, note.pitch), ())
    ]
    return [f"cut short, or struck while they sound: {named(cut)}"] if cut else []


def of_continuation(
    old: File, new: File, step: Fraction, bars: int, notes: int
) -> dict[str, list[str]]:
    """What is wrong with a file that goes on for some bars.

    Args:
        old: The file.
        new: The file with its continuation.
        step: Ticks in a step of the model.
        bars: How many bars were asked for.
        notes: How many notes the model made.
    """
    faults = of_both(old, new)
    seam, last = old.seam(step, bars)
    lost, others, early, late, strange = [], [], [], [], []
    fresh = []
    for number, tracks in enumerate(zip(old.tracks, new.tracks, strict=False)):
        more, missing = added(*tracks)
        lost += missing
        early += [event for event in more if event[0] < seam]
        late += [event for event in more if event[0] > last]
        off = mido.Message("control_change", control=PEDAL, value=0)
        for event in more:
            kind = event[1].type
            is_off = kind == "control_change" and event[1].copy(channel=0) == off
            if kind not in ("note_on", "note_off") and not is_off:
                others.append(event)
            if kind == "note_on" and (number, event[1].channel) not in old.places:
                strange.append(event)
    there = set(old.notes)
    fresh = [n for n in new.notes if n not in there and n.start >= seam]
    faults |= {
        "messages stand": [f"lost: {named(lost)}"] if lost else [],
        "nothing else is new": [f"new: {named(others)}"] if others else [],
        "new notes after the seam": [f"before {seam}: {named(early)}"] if early else [],
        "within the bars": [f"after {last}: {named(late)}"] if late else [],
        "in voices of the piece": [f"{named(strange)}"] if strange else [],
        "all keys released": held(new.notes),
        "new notes sound": whole(new, fresh),
        "all notes of the model": _count(fresh, notes),
    }
    return faults


def _count(fresh: list[Note], notes: int) -> list[str]:
    return [f"{len(fresh)} of {notes}"] if len(fresh) != notes else []


def of_only_new(
    old: File, new: File, step: Fraction, bars: int, notes: int
) -> dict[str, list[str]]:
    """What is wrong with a continuation alone, which begins at tick 0.

    Args:
        old: The file that it goes on from.
        new: The continuation.
        step: Ticks in a step of the model.
        bars: How many bars were asked for.
        notes: How many notes the model made.
    """
    seam, last = old.seam(step, bars)
    faults = {}
    before, after = in_force(old, seam), in_force(new, 0)
    differing = set(before.items()) ^ set(after.items())
    faults["state at the seam"] = (
        [f"differs: {named(sorted(differing, key=str))}"] if differing else []
    )
    faults["tracks"] = (
        [] if len(old.tracks) == len(new.tracks) else [f"{len(new.tracks)}"]
    )
    late = [n for n in new.notes if n.end is not None and n.end > last - seam]
    strange = [note for note in new.notes if note.place not in old.places]
    faults |= {
        "all keys released": held(new.notes),
        "within the bars": [f"after {last - seam}: {named(late)}"] if late else [],
        "in voices of the piece": [f"{named(strange)}"] if strange else [],
        "new notes sound": whole(new, new.notes),
        "all notes of the model": _count(new.notes, notes),
    }
    return faults


def in_force(file: File, tick: int) -> dict:
    """What tempo, meter, key, instruments and controls are at a tick."""
    state: dict[tuple, str] = {}
    for number, track in enumerate(file.tracks):
        for at, message in track:
            if at > tick:
                break
            if message.type in ("program_change", "control_change"):
                about = number, message.channel, getattr(message, "control", None)
                state[message.type, *about] = str(message)
    moments = [
        (at, message)
        for at, message in itertools.chain(*file.tracks)
        if message.type in OF_THE_PIECE and at <= tick
    ]
    for _, message in sorted(moments, key=lambda event: event[0]):
        state[(message.type,)] = str(message)
    return {key: text for key, text in state.items() if key[-1] != PEDAL}


def of_harmony(
    old: File, new: File, kept: list[Place], more_tracks: int = 0
) -> dict[str, list[str]]:
    """What is wrong with a file in which some voices were found anew.

    Args:
        old: The file.
        new: The file with other voices.
        kept: The voices that were to be kept; all others that are pitched were not.
        more_tracks: How many tracks are new. Default: 0.
    """
    faults = of_both(old, new, more_tracks)
    replaced = [place for place in old.places if place not in kept]

    def is_replaced(number: int, event: Event) -> bool:
        kind = event[1].type
        return kind in OF_NOTES and (number, event[1].channel) in replaced

    lost, strange = [], []
    for number, tracks in enumerate(zip(old.tracks, new.tracks, strict=False)):
        before, after = (
            [event for event in track if not is_replaced(number, event)]
            for track in tracks
        )
        if before != after:
            lost.append(f"track {number}: {named(_differing(before, after))}")
        strange += [
            event
            for event in tracks[1]
            if is_replaced(number, event)
            and event[1].type not in ("note_on", "note_off")
        ]
    alone = [
        [event for event in track if not is_replaced(number, event)]
        for number, track in enumerate(old.tracks)
    ]
    sound, less = heard(new.tracks), []
    for key, times in heard(alone).items():
        less += [
            (*key, *time) for time in sorted(times) if time not in sound.get(key, ())
        ]
    fresh = [
        note
        for note in new.notes
        if note.place in replaced or note.track >= len(old.tracks)
    ]
    faults |= {
        "kept messages stand": lost,
        "nothing else is new": [f"{named(strange)}"] if strange else [],
        "all keys released": held(fresh),
        "kept notes sound": [f"not: {named(less)}"] if less else [],
        "new notes sound": whole(new, fresh),
    }
    return faults


def _differing(before: list[Event], after: list[Event]) -> list[Event]:
    for pair in itertools.zip_longest(before, after):
        if pair[0] != pair[1]:
            return [event for event in pair if event]
    return []
