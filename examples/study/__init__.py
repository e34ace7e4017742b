"""The study of Chung et al. (2014), repeated: which cell is better, at equal size?

`tasks`: the six sets of music and speech, each with its data, its sizes, its model and
its batches. `trials`: recipes, trials, and the plan, which says what to train from what
has been recorded. `records`: the trials that have ended, on disk. `tuner`: KerasTuner
over the plan, in one process or several. `report` and `figures`: tables and pictures of
the records, with the figures of `paper` beside them. `timing`: how long an update
takes. `python examples/empirical_study.py` runs `__main__`, and `python
examples/study_report.py` runs `report`.
"""
