"""Mutated files for every reader of what users hand in: `make fuzz`.

`mutations.py` changes files, `shells.py` opens and closes what would hide its content
behind a checksum, `readers.py` is the table of readers with their seeds and the errors
that they document, `child.py` reads in a process of its own, and `__main__.py` watches
it.
"""
