"""Programs that are killed again and again, and come to the same end: `make kills`.

`tasks.py` is the table of programs with their data, `ends.py` reads what they have left
behind, and `__main__.py` kills them at random and compares. The study that it kills is
`small_study.py`.
"""
