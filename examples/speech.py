"""Trains the cells of Chung et al. (2014) at equal size on raw sound.

At every step a cell sees 20 samples of a waveform and predicts the next 10 by a
mixture of 20 Gaussians. The sound is a folder of recordings, the Free Spoken Digit
Dataset or, without either, sentences spoken by espeak-ng if that is installed and
otherwise chorales by Bach as sine tones. The results are a table, with three baselines
above the cells, and in the log folder, for every cell, the best model, a recording it
has not seen and the model's continuation of its beginning (WAV), TensorBoard curves,
sound and pictures; and for all cells the learning curves.
"""

import argparse
import math
import sys
from collections.abc import Iterable
from pathlib import Path

import quiet  # noqa: F401
import comparison
import numpy as np
from comparison import positive
from comparison.sound import (
    COMPONENTS,
    EVENT,
    FRAME,
    Parts,
    batches,
    likelihood,
)

from keras_gated import GaussianMixture, callbacks, distribution, generation
from keras_gated.datasets import audio, fsdd, synthesized
from keras_gated.datasets.files import require

PRIMER_SECONDS, CONTINUATION_SECONDS = 0.5, 2.0
BASELINE_STEPS = 200_000
COLUMNS = {
    "cell": "{cell}",
    "units": "{units}",
    "parameters": "{parameters:,}",
    "epochs": "{epochs}",
    "s an epoch": "{seconds_an_epoch:.1f}",
    "train NLL": "{train_nll:.3f}",
    "test NLL": "{test_nll:.3f}",
    "by sequence": "{test_nll_sequence:.3f}",
    "as recorded": "{test_nll_as_recorded:.3f}",
}


def parse_arguments() -> argparse.Namespace:
    parser = comparison.parser(
        __doc__,
        budget=168_800,
        epochs=12,
        decay="cosine",
        patience=5,
        batch_size=16,
        learning_rate=0.001,
        log_dir=Path("runs/speech"),
    )
    comparison.add_workers(parser)
    add = parser.add_argument
    sound = parser.add_mutually_exclusive_group()
    sound.add_argument(
        "--audio-dir",
        type=Path,
        metavar="DIR",
        help="train on the sound files (WAV, FLAC, OGG, MP3) of this folder and its "
        "subfolders: 80 %% for training, 10 %% each for validation and test",
    )
    sound.add_argument(
        "--dataset",
        choices=["auto", "speech", "chorales", "fsdd"],
        default="auto",
        help="speech: by espeak-ng; chorales: as sine tones; auto: speech if "
        "espeak-ng is installed, otherwise chorales; fsdd: the Free Spoken Digit "
        "Dataset (default: %(default)s)",
    )
    add(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="the folder of the Free Spoken Digit Dataset's recordings",
    )
    add(
        "--split",
        choices=["recording", "speaker"],
        default="recording",
        help="what training, validation and test do not share; with --audio-dir, "
        "speaker is the subfolder a file is in (default: %(default)s)",
    )
    add(
        "--sampling-rate",
        type=positive(int),
        default=8000,
        metavar="HZ",
        help="samples per second to resample to (default: %(default)s)",
    )
    add(
        "--sequence-length",
        type=positive(int),
        default=500,
        metavar="N",
        help="samples of a sequence; recordings are joined where most are shorter "
        "(default: %(default)s; the paper's other is 8000)",
    )
    add(
        "--decoder",
        choices=["auto", "soundfile", "tensorflow-io"],
        default="auto",
        help="of sound files (default: %(default)s)",
    )
    args = parser.parse_args()
    if args.data_dir is not None and args.dataset != "fsdd":
        parser.error("--data-dir is for --dataset fsdd; or is --audio-dir meant?")
    return args


def load_sound(args: argparse.Namespace) -> Parts:
    reading = {"sampling_rate": args.sampling_rate, "decoder": args.decoder}
    if args.dataset == "fsdd":
        return fsdd.load_data(args.data_dir, args.split, **reading)
    folder = args.audio_dir
    if folder is None:
        spoken = args.dataset == "speech" or (
            args.dataset == "auto" and synthesized.has_speaker()
        )
        folder = synthesized.speech() if spoken else synthesized.chorales()
    recordings = audio.read_directory(folder, **reading)
    groups = (lambda path: path.parent) if args.split == "speaker" else None
    rest, test = recordings.split(0.1, seed=args.seed, groups=groups)
    train, valid = rest.split(1 / 9, seed=args.seed, groups=groups)
    return train, valid, test


def datasets(args: argparse.Namespace, data: Parts) -> tuple:
    return batches(data, args.batch_size, args.seed, args.sequence_length)


def describe(args: argparse.Namespace, data: Parts) -> dict:
    sequences = [sum(len(x) for x, *_ in part) for part in datasets(args, data)]
    for name, part, count in zip(
        ("training", "validation", "test"), data, sequences, strict=True
    ):
        print(
            f"{name}: {len(part):,} recordings, {part.seconds / 60:.1f} minutes, "
            f"{count:,} sequences of {args.sequence_length:,} samples"
        )
    mean, std = data[0].standardization()
    return {
        "recordings": [len(part) for part in data],
        "seconds_of_sound": [part.seconds for part in data],
        "sequences": sequences,
        "sequence_length": args.sequence_length,
        "mean": mean,
        "deviation": std,
    }


def baselines(args: argparse.Namespace, data: Parts) -> list[dict]:
    """The NLL without a recurrent layer.

    Of a Gaussian (of any covariance) and a mixture that do not see the past, and of a
    linear prediction from the frame whose residual is such a Gaussian.
    """
    mixture = require("sklearn.mixture", extra="examples").GaussianMixture(
        COMPONENTS, covariance_type="diag", tol=0.01, random_state=args.seed
    )
    normal = require("scipy.stats", extra="examples").multivariate_normal
    parts = [_steps(dataset) for dataset in datasets(args, data)[::2]]
    designs = [np.insert(x, 0, 1, axis=1) for x, _ in parts]
    events = [y for _, y in parts]
    weights = np.linalg.lstsq(designs[0], events[0], rcond=None)[0]
    residuals = [y - x @ weights for x, y in zip(designs, events, strict=True)]
    # The lower bound of the cells' mixture: without one, the residual of pure tones
    # would have no variance.
    floor = GaussianMixture().min_scale ** 2 * np.eye(EVENT)
    gaussian, of_residuals = (
        normal(fitted.mean(axis=0), np.cov(fitted.T) + floor)
        for fitted in (events[0], residuals[0])
    )
    mixture.fit(events[0])
    unit = EVENT * math.log(data[0].standardization().std)
    rows = []
    for name, density, both in (
        ("no past: Gaussian", gaussian.logpdf, events),
        ("no past: mixture", mixture.score_samples, events),
        ("linear prediction", of_residuals.logpdf, residuals),
    ):
        train_nll, test_nll = (-float(density(part).mean()) for part in both)
        row = {"cell": name, "train_nll": train_nll, "test_nll": test_nll}
        rows.append({**row, "test_nll_as_recorded": test_nll + unit})
    return rows


def _steps(dataset: Iterable) -> tuple[np.ndarray, np.ndarray]:
    """The frames and events of the first `BASELINE_STEPS` steps."""
    parts, count = [], 0
    for inputs, targets, _ in dataset:
        parts.append(
            (inputs.numpy().reshape(-1, FRAME), targets.numpy().reshape(-1, EVENT))
        )
        count += len(parts[-1][0])
        if count >= BASELINE_STEPS:
            break
    x, y = (
        np.concatenate(some).astype(np.float64) for some in zip(*parts, strict=True)
    )
    return x, y


def train_cell(
    name: str, args: argparse.Namespace, data: Parts, run: Path
) -> tuple[dict, dict]:
    """Trains one cell; returns its row of the table and its learning curves."""
    model = comparison.build(name, args, *likelihood(data))
    clip = max((data[2][i] for i in range(len(data[2]))), key=len)
    rate = args.sampling_rate
    seconds = min(PRIMER_SECONDS, 0.75 * len(clip) / rate)
    workers, parts = distribution.initialize(), datasets(args, data)
    own = workers.folder(run / name)
    watchers = [
        callbacks.TerminateOnNaN(parts[0]),
        callbacks.SoundSummary(own, clip, rate, seconds, every=5),
    ]
    row, curves = comparison.train(model, args, parts, run / name, watchers, 50)
    parts[0].start_at(0)  # the sum of another order would round otherwise
    training = workers.share(parts[0])
    row["train_nll"] = model.evaluate(training, verbose=0, return_dict=True)["nll"]
    unit = EVENT * math.log(data[0].standardization().std)
    row["test_nll_as_recorded"] = row["test_nll"] + unit
    row["seconds_an_epoch"] = float(np.median(np.diff([0.0, *curves["seconds"]])))
    if workers.is_first:
        primer = clip[: int(seconds * rate)]
        went_on = generation.generate_audio(
            model, primer, int(CONTINUATION_SECONDS * rate), seed=args.seed
        )
        audio.write(clip, run / name / "recorded.wav", rate)
        sound = np.concatenate([primer, went_on])
        audio.write(sound, run / name / "generated.wav", rate)
    return row, curves


def main() -> int:
    args = parse_arguments()
    return comparison.run_all(
        args,
        lambda: load_sound(args),
        lambda data: describe(args, data),
        lambda name, data, run: train_cell(name, args, data, run),
        COLUMNS,
        lambda data: baselines(args, data),
    )


if __name__ == "__main__":
    sys.exit(main())
