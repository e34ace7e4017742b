"""The figures of the paper (Chung et al., 2014)."""

TABLE_1 = {
    "music": {"lstm": (36, 19.8e3), "gru": (46, 20.2e3), "tanh": (100, 20.1e3)},
    "speech": {"lstm": (195, 169.1e3), "gru": (227, 168.9e3), "tanh": (400, 168.4e3)},
}
"""The units and parameters of each cell."""
TABLE_2 = {
    "nottingham": {"tanh": (3.22, 3.13), "gru": (2.79, 3.23), "lstm": (3.08, 3.20)},
    "jsb_chorales": {"tanh": (8.82, 9.10), "gru": (6.94, 8.54), "lstm": (8.15, 8.67)},
    "muse_data": {"tanh": (5.64, 6.23), "gru": (5.06, 5.99), "lstm": (5.18, 6.23)},
    "piano_midi": {"tanh": (5.64, 9.03), "gru": (4.93, 8.82), "lstm": (6.49, 9.03)},
}
"""The NLL of training and test. The recordings of speech are not public, so their
figures cannot be compared."""
ORDERS = {
    "speech_500": ("lstm", "gru", "tanh"),
    "speech_8000": ("gru", "lstm", "tanh"),
    **{
        name: tuple(sorted(found, key=lambda cell: found[cell][1]))
        for name, found in TABLE_2.items()
    },
}
"""The cells of Table 2, the best by test first."""
