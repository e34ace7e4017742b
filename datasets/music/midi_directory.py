"""Folders of MIDI files: rolls of all of them, and batches for training."""

import collections
import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checks
from ..files import Finding, cache_directory, os_errors_as
from ..folders import check_no_labels, check_split, find_files, split, wanted
from ..processes import MEMORY, SECONDS, Processes, Read
from ..reading import ERRORS, read_many
from ..report import Report
from ..store import Store, digest
from . import midi, piano_roll
from .grid import AUTO, Choice, Fit, choose, total
from .midi_engines import MIDIError, engine_name, read_bytes
from .step_features import PackedFeatures, feature_columns

if TYPE_CHECKING:
    import tensorflow as tf

SUFFIXES = (".mid", ".midi", ".kar", ".rmi", ".smf")
"""The endings by which MIDI files are known, in any case."""
STORE = "midi_rolls"
"""The name of the files in which rolls are kept."""
RULES = "6"
"""Changes whenever the same file and options come to give another roll."""
AHEAD = 8
"""How many files are begun for each process, so that none waits for work."""


@dataclasses.dataclass
class Corpus:
    """MIDI files that were read, and those that were not."""

    paths: list[Path]
    """The files that were read, in the order of their paths."""
    rolls: piano_roll.PackedRolls
    """Their rolls."""
    skipped: dict[Path, Finding]
    """Why files, and folders that cannot be listed, were skipped."""
    dropped_notes: int
    """How many notes lie outside the 88 keys and were left out."""
    rounded_notes: int
    """How many notes the grid rounds to nothing; they were left out."""
    unreleased_notes: int
    """How many notes are never released; they were left out."""
    problems: dict[Path, list[str]]
    """What was wrong with files that were repaired."""
    steps_per_quarter: int | Fraction
    """Steps in a quarter note, also where `"auto"` chose them."""
    report: Report
    """All of this as a table, and as JSON."""
    grid: Choice | None = None
    """What `steps_per_quarter="auto"` chose."""
    features: PackedFeatures | None = None
    """What the scores say about each step, if the options ask for it."""
    stated: dict[str, int] | None = None
    """How many files state each kind of the features; others have 4/4, and no key."""

    def __str__(self) -> str:
        return str(self.report)


def read_directory(
    directory: str | os.PathLike,
    *,
    follow_links: bool = False,
    workers: int | None = None,
    parse_seconds: float | None = SECONDS,
    parse_memory: int | None = MEMORY,
    cache: bool = True,
    cache_dir: str | os.PathLike | None = None,
    errors: str = "skip",
    verbose: bool = True,
    **options: Any,
) -> Corpus:
    """Reads all MIDI files of a folder and its subfolders.

    Their names end in `.mid`, `.midi`, `.kar`, `.rmi` or `.smf`, in any case.

    Several processes parse the files; a file that crashes its parser, or takes it too
    long or too much memory, is skipped. The rolls are kept on disk by the content of
    each file and the options: reading again is many times faster, also after an
    interruption.

    Args:
        directory: The folder.
        follow_links: Whether to go into folders that are links. Default: `False`.
        workers: The largest number of processes, each of which takes some 0.3 seconds
            to start; with 1 the files are parsed in this process, which a crash of the
            parser would end, and without the limits that follow. Default: `None`, one
            for each core, and two at least.
        parse_seconds: A file that takes its parser longer is skipped; `None` for no
            limit. Default: 300.
        parse_memory: A file is skipped for which its parser takes more memory, in MiB,
            256 at least; `None` for no limit. Only on Linux. Default: 4,096.
        cache: Whether to keep rolls, and use those that were kept. Default: `True`.
        cache_dir: The folder of the two files `midi_rolls.sqlite` and
            `midi_rolls.data`. Default: `datasets/keras_gated` in Keras's folder
            (`$KERAS_HOME`, or `~/.keras`).
        errors: `"skip"` files that cannot be read, or `"raise"`, also where a file has
            to be repaired. Default: `"skip"`.
        verbose: Whether to show a progress bar and the report. Default: `True`.
        **options: How to read the files: those of `midi.Options` but `velocity`.
            `transpose="random"` moves all files by the same number of semitones if
            there is a `seed`; without one rolls are not kept.
            `steps_per_quarter="auto"` chooses one grid for all files, by the notes of
            all of them, which are therefore parsed twice the first time.

    Returns:
        The rolls, the paths of the files, what was skipped and why, what was repaired
        and left out, and a report of all this, which is also written beside the cache,
        as JSON (`corpus.report.path`).

    Raises:
        ValueError: The folder does not exist, cannot be read, or holds no MIDI file
            that can be read; or an argument is out of its range.
        MIDIError: With `errors="raise"`: a file cannot be read.
        ImportError: The parser is not installed.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import midi, midi_directory
    >>> midi.write(np.eye(88), "tunes/scale.mid")
    >>> corpus = midi_directory.read_directory("tunes", verbose=False)
    >>> corpus.rolls[0].shape
    (88, 88)
    """
    settings = midi.Options(**options)
    if settings.velocity:
        raise ValueError("Rolls of velocities are read one by one, with `midi.read`.")
    if checks.one_of("errors", errors, ERRORS) == "raise":
        settings = dataclasses.replace(settings, strict=True)
    workers = checks.whole("workers", workers, optional=True)
    if workers is None:
        workers = max(2, os.cpu_count() or 1)  # with one there are no limits
    limits = (
        checks.number("parse_seconds", parse_seconds, above=0, optional=True),
        checks.whole("parse_memory", parse_memory, 256, optional=True),
    )
    engine_name(settings.engine)
    paths, skipped, _ = find_files(directory, SUFFIXES, "MIDI file", follow_links)
    by_chance = settings.transpose == "random" and settings.seed is None
    cache_dir = cache_directory(cache_dir)
    choice = None
    with contextlib.ExitStack() as stack:
        store = None
        if cache and not by_chance:
            store = stack.enter_context(Store(STORE, cache_dir))

        def read_files(function: str) -> dict[Path, Read]:
            key = {**settings.to_json(), "engine": None, "rules": RULES, "by": function}
            with _parsing(function, settings, workers, *limits) as parse:
                start = functools.partial(_start, store, key, parse)
                ahead = AHEAD * workers
                found = dict(read_many(paths, start, skipped, errors, ahead, verbose))
            if found:
                return found
            raise ValueError(
                f"None of the {len(skipped)} MIDI files of {str(directory)!r} can be "
                f"read; the first: {next(iter(skipped.values()))}"
            )

        if settings.steps_per_quarter == AUTO and settings.step_seconds is None:
            about = (about for _, about in read_files("fit_reader").values())
            fits = [Fit(notes, kept) for notes, *kept in about]
            choice = choose(total(fits))
            chosen = {"steps_per_quarter": choice.steps_per_quarter}
            settings = dataclasses.replace(settings, **chosen)
        found = read_files("packed_reader")
    corpus = _corpus(found, skipped, settings, choice)
    if cache:
        corpus.report.save(STORE, cache_dir, directory)
    if verbose:
        corpus.report.show()
    return corpus


def _corpus(
    found: dict[Path, Read],
    skipped: dict[Path, Finding],
    settings: midi.Options,
    choice: Choice | None,
) -> Corpus:
    """The corpus, with its report."""
    features = stated = None
    if settings.features:
        *_, sizes, kinds = zip(*(about for _, about in found.values()), strict=True)
        both = list(zip((data for data, _ in found.values()), sizes, strict=True))
        features = PackedFeatures((d[size:] for d, size in both), settings.features)
        stated = collections.Counter(itertools.chain(*kinds))
        stated = {kind: stated[kind] for kind in settings.features}
        found = {
            path: (data[:size], about[:-2])
            for (path, (_, about)), (data, size) in zip(
                found.items(), both, strict=True
            )
        }
    packed = (data for data, _ in found.values())
    rolls = piano_roll.PackedRolls(packed, settings.onsets)
    skipped = dict(sorted(skipped.items()))
    readers, *counts, _ = zip(*(about for _, about in found.values()), strict=True)
    lost = [sum(count) for count in counts]
    problems = {path: about[-1] for path, (_, about) in found.items() if about[-1]}
    warnings = {
        path: findings
        for path, (_, (_, *about)) in found.items()
        if (findings := midi.findings(*about))
    }
    steps = sum(rolls.lengths)
    summary = f"{len(found):,} MIDI files read, {steps:,} steps."
    if choice is not None:
        summary += f" {choice}."
    facts = dict(zip(("outside", "rounded", "unreleased"), lost, strict=True))
    facts = {"files": len(found), "steps": steps, "notes_left_out": facts}
    if choice is not None:
        kept = {"notes": choice.notes, "kept": choice.kept}
        facts["grid"] = {"steps_per_quarter": str(choice.steps_per_quarter), **kept}
    report = Report(summary, collections.Counter(readers), warnings, skipped, facts)
    what = problems, settings.steps_per_quarter, report, choice, features, stated
    return Corpus([*found], rolls, skipped, *lost, *what)


Parse = Callable[[Path, bytes], Callable[[], Read]]


@contextlib.contextmanager
def _parsing(
    function: str,
    options: midi.Options,
    workers: int,
    seconds: float | None,
    memory: int | None,
) -> Iterator[Parse]:
    """How files are parsed: what begins it, and returns what waits for the result.

    Args:
        function: The function of `midi` that makes the parser.
        options: How to read files.
        workers: The number of processes; with 1 there are none.
        seconds: How long a process may take for a file.
        memory: How much memory.
    """
    settings = options.to_json()
    if workers == 1:
        parse = getattr(midi, function)(**settings)
        yield lambda path, content: functools.partial(parse, path, content)
    else:
        name = f"music.midi:{function}"
        limits = seconds, memory
        with Processes(name, settings, MIDIError, workers, *limits) as some:
            yield some.submit


def _start(
    store: Store | None, settings: dict, parse: Parse, path: Path
) -> Callable[[], Read]:
    """Begins to read a file; the bytes that are parsed are those of the key."""
    with os_errors_as(MIDIError, path):
        content = read_bytes(path)
    if store is None:
        return parse(path, content)
    key = digest(settings, content)
    if (known := store.get(key)) and (data := store.read(known)) is not None:
        return lambda: (data, known.about)
    wait = parse(path, content)

    def read() -> Read:
        found = wait()
        store.put(key, *found)
        return found

    return read


def midi_dataset_from_directory(
    directory: str | os.PathLike,
    labels: None = None,
    label_mode: None = None,
    class_names: None = None,
    batch_size: int = 32,
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    follow_links: bool = False,
    verbose: bool = True,
    *,
    sequence_length: int | None = None,
    max_shapes: int = 12,
    random_transpose: bool = False,
    teacher_forcing: bool = False,
    groups: Callable[[Path], Any] | None = None,
    workers: int | None = None,
    parse_seconds: float | None = SECONDS,
    parse_memory: int | None = MEMORY,
    cache: bool = True,
    cache_dir: str | os.PathLike | None = None,
    errors: str = "skip",
    **options: Any,
) -> "tf.data.Dataset | tuple[tf.data.Dataset, tf.data.Dataset]":
    """Batches of next-step prediction from a folder of MIDI files.

    The first arguments are those of `keras.utils.audio_dataset_from_directory` that
    apply to MIDI files; the batches are those of `piano_roll.next_step_dataset`. The
    target of a step is the next step, so there are no class labels; subfolders
    are only folders.

    Args:
        directory: The folder; its subfolders are read, too.
        labels: Must be `None`.
        label_mode: Must be `None`.
        class_names: Must be `None`.
        batch_size: The largest number of sequences in a batch. Default: 32.
        shuffle: Whether to put the files in a random order before they are split,
            and the batches before each pass. Without it, validation has the last
            files in the order of their paths. Default: `True`.
        seed: The seed of all that is random. Needed where `subset` is one of two
            parts of what is shuffled. Default: `None`.
        validation_split: The fraction of the files, between 0 and 1, that is set
            aside for validation; one file at least. Default: `None`.
        subset: Which part to return: `"training"`, `"validation"` or `"both"`.
            Needed with `validation_split`. Default: `None`.
        follow_links: Whether to go into folders that are links. Default: `False`.
        verbose: Whether to show a progress bar and a report. Default: `True`.
        sequence_length: Cuts the music into sequences of so many predicted
            steps. Default: `None`, whole files.
        max_shapes: The largest number of different shapes of batches. Default: 12.
        random_transpose: Whether each pass transposes each sequence of the training
            part by -5 to 6 semitones, and the tonics of its features. Default:
            `False`.
        teacher_forcing: Whether the targets are an input, too, as a model that ends in
            `keras_gated.NADE` needs them. Default: `False`.
        groups: Maps a path to the group of the file, such as its composer
            (`lambda path: path.parent.name`); a split never parts a group. Default:
            `None`, each file is its own group.
        workers: As in `read_directory`.
        parse_seconds: As in `read_directory`.
        parse_memory: As in `read_directory`.
        cache: As in `read_directory`.
        cache_dir: As in `read_directory`.
        errors: As in `read_directory`.
        **options: Those of `midi.Options` but `velocity` and `seed`: with `onsets=True`
            frames have 176 columns, with `features=["meter", "key"]` these are an input
            more.

    Returns:
        A `tf.data.Dataset` of `(inputs [batch, time, 88], targets [batch, time,
        88], weights [batch, time])`; with `subset="both"` that of training and
        that of validation. With `teacher_forcing` the inputs are `(inputs, targets)`,
        and features `[batch, time, F]` follow them. Each has the attributes
        `file_paths` (its files) and `corpus` (the `Corpus`, with what was skipped).

    Raises:
        ValueError: As `read_directory` does; or a part has no music of two
            steps or more, or the arguments do not go together.
        ImportError: The parser is not installed.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import midi, midi_dataset_from_directory
    >>> for k in range(4):
    ...     midi.write(np.eye(88)[: 60 + k], f"four/tune{k}.mid")
    >>> train, valid = midi_dataset_from_directory(
    ...     "four", validation_split=0.25, subset="both", seed=1, verbose=False
    ... )
    >>> len(train.file_paths), len(valid.file_paths)
    (3, 1)
    """
    check_no_labels(labels, label_mode, class_names)
    check_split(validation_split, subset, shuffle, seed)
    corpus = read_directory(
        directory,
        follow_links=follow_links,
        workers=workers,
        parse_seconds=parse_seconds,
        parse_memory=parse_memory,
        cache=cache,
        cache_dir=cache_dir,
        errors=errors,
        verbose=verbose,
        **options,
    )
    parts = _parts(corpus, validation_split, shuffle, seed, groups)
    datasets = []
    for name in wanted(subset):
        features, tonic = corpus.features, None
        if features is not None:
            features = features.take(parts[name])
            tonic = feature_columns(features.kinds).get("key", slice(None)).start
        dataset = piano_roll.next_step_dataset(
            corpus.rolls.take(parts[name]),
            batch_size,
            shuffle,
            seed,
            max_shapes,
            sequence_length,
            random_transpose and name == "training",
            teacher_forcing,
            features,
            tonic,
        )
        dataset.file_paths = [corpus.paths[i] for i in parts[name]]
        dataset.corpus = corpus
        datasets.append(dataset)
    return tuple(datasets) if len(datasets) > 1 else datasets[0]


def _parts(
    corpus: Corpus,
    validation_split: float | None,
    shuffle: bool,
    seed: int | None,
    groups: Callable[[Path], Any] | None,
) -> dict[str, Iterable[int]]:
    """The numbers of the files of each part, without those of a single step."""
    long = []
    for i, length in enumerate(corpus.rolls.lengths):
        if length > 1:
            long.append(i)
        else:
            path = corpus.paths[i]
            reason = f"{str(path)!r} has one step; training needs two."
            corpus.skipped[path] = Finding(reason, "one step")
    if not long:
        raise ValueError(
            f"None of the {len(corpus.paths)} MIDI files has two steps or more, which "
            "training needs."
        )
    if validation_split is None:
        order = np.random.default_rng(seed).permutation(long) if shuffle else long
        return {"training": order}
    paths = [corpus.paths[i] for i in long]
    both = split(paths, validation_split, shuffle, seed, groups)
    train, valid = ([long[i] for i in part] for part in both)
    return {"training": train, "validation": valid}
