"""The reading of many files: order, errors, and how many are begun."""

import pytest

from keras_gated.datasets.files import FileError
from keras_gated.datasets.reading import read_many


def read(paths, *, bad=(), begun=None, **options):
    """Results, what was skipped, and how many were begun and not yet waited for."""
    waiting, skipped = set(), {}

    def start(path):
        if path in bad[:1]:
            raise FileError(f"{path} cannot be opened")
        waiting.add(path)
        if begun is not None:
            begun.append(len(waiting))

        def wait():
            waiting.remove(path)
            if path in bad:
                raise FileError(f"{path} cannot be parsed")
            return path.upper()

        return wait

    options = {"verbose": False, **options}
    return list(read_many(paths, start, skipped, **options)), skipped


def test_results_come_in_the_order_of_the_files():
    paths, begun = list("abcdefg"), []
    found, skipped = read(paths, ahead=3, begun=begun)
    assert found == [(path, path.upper()) for path in paths]
    assert skipped == {}
    assert max(begun) == 3


def test_what_cannot_be_read_is_skipped_or_raised(capsys):
    found, skipped = read(list("abcd"), bad="bd", ahead=2, verbose=True)
    assert [path for path, _ in found] == ["a", "c"]
    assert skipped == {"b": "b cannot be opened", "d": "d cannot be parsed"}
    assert "4/4" in capsys.readouterr().out
    for bad, message in (("b", "b cannot be opened"), ("ad", "a cannot be opened")):
        with pytest.raises(FileError, match=message):
            read(list("abcd"), bad=bad, ahead=4, errors="raise")


def test_other_errors_are_not_hidden():
    def start(path):
        return lambda: 1 / 0

    with pytest.raises(ZeroDivisionError):
        list(read_many(["a"], start, {}, verbose=False))
