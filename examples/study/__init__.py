"""The study of Chung et al. (2014), repeated: which cell is better, at equal size?

`tasks`: the six sets of music and speech, with their data, sizes, models and batches.
`trials`: recipes, trials, and the plan, which determines the next trials from the
records. `records`: the trials that have ended, on disk. `tuner`: KerasTuner over the
plan, in one process or several. `report`, `tables` and `figures`: what is made of the
records, beside the figures of the `paper`. `timing`: the time of an update.

`python examples/empirical_study.py` runs `__main__`, `python examples/study_report.py`
runs `report`, and `python benchmarks/study.py` runs `timing`.
"""
