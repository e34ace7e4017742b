"""How MIDI files are read: the options, checked."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence, Set
from fractions import Fraction
from numbers import Integral
from typing import Any

from .. import checks
from ..files import require
from .grid import AUTO, rate
from .midi_engines import ENGINES
from .step_features import check_kinds

NOTES = ("drop", "keep")
STARTS = ("zero", "first_note")
PROGRAMS = 128


@dataclasses.dataclass(frozen=True)
class Options:
    """How a MIDI file is read.

    Args:
        steps_per_quarter: Steps in a quarter note: a positive number, a `Fraction`
            or its text (`"4/3"`); or `"auto"`, the coarsest grid that keeps 99 % of
            the notes of a file, or of a folder (see `grid.choose`). Default: 2.
        step_seconds: The length of a step in seconds, positive: steps then follow
            the clock, with tempo changes and the sustain pedal. Default: `None`,
            steps follow the score.
        short_notes: What becomes of a note that is rounded to nothing: `"drop"`,
            as in the published sets, or `"keep"` for one step. Default: `"drop"`.
        unreleased_notes: What becomes of a note that is never released: `"drop"`, or
            `"keep"` to the end of its track. Default: `"drop"`.
        outside_notes: What becomes of a note outside the 88 keys: `"drop"`, or
            `"keep"`, moved by octaves to the nearest of them. Default: `"drop"`.
        start: `"zero"`, or `"first_note"` to leave out the silent steps before
            the first note. Default: `"zero"`.
        transpose: Semitones up; or `"C"`: to C major or C minor, by at most six
            semitones, from the file's first key signature or, if there is none,
            from `estimate_key`; or `"random"`: by -5 to 6 semitones. Default: 0.
        seed: Makes `transpose="random"` repeatable. Default: `None`.
        instruments: Which to read: General MIDI programs (0 to 127), names
            (`"Violin"`) or families (`"Strings"`), in any case. Default: all.
        tracks: Which to read: their numbers in the file (from 0) or names, in any
            case. Default: all.
        drums: Whether to read the drums, too, as pitches. Default: `False`.
        pedal: Whether notes sound on while the sustain pedal is down. Default:
            `None`, only with `step_seconds`.
        velocity: Whether the roll holds the notes' velocities, 1 to 127, instead
            of ones. Default: `False`.
        onsets: Whether the roll has 88 more columns, ones where a key that sounds
            already is struck again: `[T, 176]`. Default: `False`.
        features: What the score says about each step: some of `"meter"` and `"key"`
            (see `step_features`). Default: `()`, nothing.
        engine: `"pretty_midi"`, the faster `"symusic"`, which gives the same, or
            `"auto"`, symusic where it is installed. Default: `"auto"`.
        strict: Whether to refuse files that are cut off, or have to be repaired in
            another way, instead of reading what is whole. Default: `False`.
        max_steps: Rolls of so many steps or more are refused; `None` for no
            limit. Default: 1,000,000.
        max_seconds: Music that lasts so long or longer is refused; `None` for no
            limit. Default: 3,600.

    Raises:
        ValueError: One is out of its range; the message names it.
    """

    steps_per_quarter: int | Fraction | str = 2
    step_seconds: float | None = None
    short_notes: str = "drop"
    unreleased_notes: str = "drop"
    outside_notes: str = "drop"
    start: str = "zero"
    transpose: int | str = 0
    seed: int | None = None
    instruments: Collection[int | str] | None = None
    tracks: Collection[int | str] | None = None
    drums: bool = False
    pedal: bool | None = None
    velocity: bool = False
    onsets: bool = False
    features: Sequence[str] = ()
    engine: str = "auto"
    strict: bool = False
    max_steps: int | None = 1_000_000
    max_seconds: float | None = 3600.0

    def __post_init__(self) -> None:
        def check(kind: Callable, name: str, *accepted: Any, **bounds: Any) -> None:
            value = kind(name, getattr(self, name), *accepted, **bounds)
            object.__setattr__(self, name, value)

        check(_grid, "steps_per_quarter")
        check(checks.number, "step_seconds", above=0, optional=True)
        for name in ("short_notes", "unreleased_notes", "outside_notes"):
            check(checks.one_of, name, NOTES)
        check(checks.one_of, "start", STARTS)
        check(_semitones, "transpose")
        check(checks.whole, "seed", 0, optional=True)
        check(_numbers_and_names, "instruments")
        check(_numbers_and_names, "tracks")
        check(checks.one_of, "onsets", (False, True))
        check(check_kinds, "features")
        check(checks.one_of, "engine", ENGINES)
        check(checks.whole, "max_steps", optional=True)
        check(checks.number, "max_seconds", above=0, optional=True)
        if self.instruments is not None:
            programs(self.instruments)
        if self.features and self.step_seconds is not None:
            raise ValueError(
                "Features of steps follow the score, not the clock; leave out either "
                f"features={self.features} or step_seconds={self.step_seconds}."
            )

    def to_json(self) -> dict[str, Any]:
        """The options as JSON holds them; `Options(**options.to_json())` is equal."""
        grid = self.steps_per_quarter
        plain = str(grid) if isinstance(grid, Fraction) else grid
        fields = dataclasses.asdict(self) | {"steps_per_quarter": plain}
        return {k: [*x] if isinstance(x, tuple) else x for k, x in fields.items()}


def _grid(name: str, value: Any) -> int | Fraction | str:
    return AUTO if isinstance(value, str) and value == AUTO else rate(value, name)


def _semitones(name: str, value: Any) -> int | str:
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and value in ("C", "random"):
        return value
    raise checks.error(name, value, "a number of semitones, 'C' or 'random'")


def _numbers_and_names(
    name: str, values: Collection[int | str] | None
) -> tuple[int | str, ...] | None:
    if values is None:
        return None
    if isinstance(values, str) or not isinstance(values, Collection):
        raise checks.error(name, values, "a list of numbers and names")
    plain = (x if isinstance(x, str) else checks.whole(name, x, 0) for x in values)
    # Rolls are kept by the options, so the members of a set need an order.
    return tuple(sorted(plain, key=str) if isinstance(values, Set) else plain)


@functools.cache
def programs(instruments: tuple[int | str, ...]) -> set[int]:
    """Finds General MIDI programs.

    Args:
        instruments: Their numbers, their names and those of families.

    Returns:
        The numbers of the programs.

    Raises:
        ValueError: There is no such program.
        ImportError: pretty_midi is not installed.
    """
    pretty_midi = require("pretty_midi", extra="examples")
    wanted = set()
    for instrument in instruments:
        if isinstance(instrument, str):
            asked = instrument.casefold()
            found = {
                program
                for program in range(PROGRAMS)
                if asked
                in (
                    pretty_midi.program_to_instrument_name(program).casefold(),
                    pretty_midi.program_to_instrument_class(program).casefold(),
                )
            }
        else:
            found = {instrument} & set(range(PROGRAMS))
        if not found:
            raise ValueError(
                "Argument `instruments` must hold General MIDI programs (0 to 127), "
                "their names or the names of families, such as 0, 'Violin', "
                f"'Strings'. Received: {instrument!r}"
            )
        wanted |= found
    return wanted
