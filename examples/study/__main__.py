"""Repeats the study of Chung et al. (2014): which cell is better, at equal size?

For every set and cell, ten learning rates are tried, drawn as in the paper; the best
by validation is trained again, for longer, with three seeds (on some sets the best few
are first tried again for as long), and on JSB Chorales also with parts of the recipe
changed. KerasTuner keeps track on disk: stop at any time, and the same command goes on
with what is missing. Every trial leaves a record with all that is needed to repeat it;
`examples/study_report.py` makes tables and figures of the records. --joint and
--variants are further studies in the same manner. With --rate, one trial alone is run,
as the command in a record does.
"""

import argparse
import json
import sys
from pathlib import Path

import keras
import tensorflow as tf
from comparison import discard_backup, positive, seed

from keras_gated.callbacks import BackupError
from study import trials
from study.joint import JointPlan
from study.recipes import ABLATIONS, JOINT_PHASES
from study.records import COMMITTED, Records, committed_in
from study.tasks import Sources
from study.trials import Plan, Trial
from study.variant_plan import VariantPlan

PLANS = {"--joint": JointPlan, "--variants": VariantPlan}
"""Plans beside the paper's, by the arguments that choose them."""


def parse_arguments(plan: Plan) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_extent(parser, plan)
    _add_folders(parser)
    _add_one_trial(parser)
    return parser.parse_args()


def _add_extent(parser: argparse.ArgumentParser, plan: Plan) -> None:
    """What is trained, and for how long."""
    parser.add_argument(
        "--sets",
        nargs="+",
        choices=list(plan.recipes),
        default=list(plan.recipes),
        metavar="SET",
        help=f"of {', '.join(plan.recipes)} (default: all)",
    )
    parser.add_argument(
        "--cells",
        nargs="+",
        choices=list(plan.cells),
        default=list(plan.cells),
        metavar="CELL",
        help=f"of {', '.join(plan.cells)} (default: all)",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--joint",
        action="store_true",
        help="train models of whole frames instead: every cell with outputs that are "
        "independent, linear autoregressive, NADE, and NADE with tied units, at the "
        "paper's size and at the best one",
    )
    instead.add_argument(
        "--variants",
        action="store_true",
        help="train variants of the cells instead, which `--variants --help` names, on "
        "JSB Chorales and Piano-midi.de, by the paper's recipe and at its size",
    )
    parser.add_argument(
        "--minutes",
        "--budget",
        type=positive(float),
        metavar="N",
        help="start no trial after N minutes; --budget is the old name of this "
        "argument (default: go on to the end)",
    )
    parser.add_argument(
        "--workers",
        type=positive(int),
        default=1,
        metavar="N",
        help="processes that share the trials (default: %(default)s)",
    )
    parser.add_argument(
        "--afresh",
        action="store_true",
        help="also run the trials whose records come with the project",
    )
    parser.add_argument(
        "--shorten",
        type=positive(int),
        default=1,
        metavar="N",
        help="divide the epochs of every trial by N, and leave the ablations out",
    )


def _add_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--study-dir",
        type=Path,
        default=Path("runs/study"),
        metavar="DIR",
        help="the folder of the study; another folder is another study "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="the folder of the published sets (default: they are downloaded)",
    )
    parser.add_argument(
        "--fsdd-dir",
        type=Path,
        metavar="DIR",
        help="the folder of the Free Spoken Digit Dataset's recordings",
    )


def _add_one_trial(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("one trial alone").add_argument
    add("--rate", type=positive(float), metavar="X", help="its learning rate")
    add("--seed", type=seed, default=0, metavar="N", help="(default: %(default)s)")
    add(
        "--epochs",
        type=positive(int),
        metavar="N",
        help="(default: those of the search)",
    )
    add("--without", choices=list(ABLATIONS), help="a change of the recipe")
    add(
        "--phase",
        choices=list(JOINT_PHASES),
        metavar="PHASE",
        help=f"of --joint: of {', '.join(map(repr, JOINT_PHASES))}",
    )


def main(plan: Plan | None = None) -> int:
    """Runs the study, or one trial.

    Args:
        plan: Of the study, before the arguments select from it or shorten it.
            Default: that of all sets and cells.

    Returns:
        The exit code.
    """
    plan = plan or next((PLANS[a] for a in sys.argv if a in PLANS), Plan)()
    args = parse_arguments(plan)
    plan = plan.part(args.sets, args.cells)
    if args.shorten > 1:
        plan = plan.shortened(args.shorten)
    sources = Sources(args.data_dir, args.fsdd_dir)
    keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()
    try:
        for name in plan.recipes:  # missing data is reported before anything starts
            plan.tasks[name].load(sources)
        if args.rate is not None:
            run_alone(args, plan, sources)
            return 0
        from study import tuner  # only the search needs KerasTuner

        committed = () if args.afresh else committed_in(COMMITTED)
        records = Records(args.study_dir / "records", committed)
        return tuner.search(
            plan, records, args.study_dir, sources, args.workers, args.minutes
        )
    except (ValueError, ImportError, OSError, BackupError) as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on with what is missing.")
        return 130


def run_alone(args: argparse.Namespace, plan: Plan, sources: Sources) -> None:
    """Runs the trial that the arguments describe, and shows its record."""
    (name, *_), (cell, *_) = plan.recipes, plan.cells
    if args.without and ABLATIONS[args.without].only not in (None, cell):
        raise ValueError(
            f"--without {args.without!r} is for the cell "
            f"{ABLATIONS[args.without].only!r}. Received: --cells {cell}"
        )
    if args.joint and not args.phase:
        raise ValueError("one trial of --joint needs --phase, too")
    trial = Trial(
        set=name,
        cell=cell,
        phase=args.phase or args.without or "alone",
        number=args.seed,
        learning_rate=args.rate,
        seed=args.seed,
        epochs=args.epochs or plan.recipes[name].search_epochs or 1,
    )
    records = Records(args.study_dir / "alone")
    folder = records.folder / trial.name
    record = trials.run(trial, plan, sources, folder)
    records.write(record)
    discard_backup(folder)
    shown = {key: value for key, value in record.items() if key != "curves"}
    print(json.dumps(shown, indent=1))
    print(f"The record with its learning curves: {records.path(trial)}")


if __name__ == "__main__":
    sys.exit(main())
