"""The figures of the paper (Chung et al., 2014), and those of others."""

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

PUBLISHED = (
    ("RNN-RBM (2012)", "estimate", (2.39, 6.27, 6.01, 7.09)),
    ("RNN-NADE (2012)", "exact", (2.31, 5.56, 5.60, 7.05)),
    ("RNN-NADE (as of 2017)", "exact", (2.31, 5.19, 5.60, 7.05)),
    ("RNN-DBN (2014)", "estimate", (2.54, 5.68, 6.28, 7.15)),
    ("STORN (2014)", "bound", (2.85, 6.91, 6.16, 7.13)),
    ("LV-RNN (2016)", "bound", (2.72, 3.99, 6.89, 7.61)),
    ("DMM-Aug-NADE (2017)", "bound", (2.35, 5.34, 6.12, 7.10)),
)
"""What others have reported of models of whole frames, by step: Nottingham, JSB
Chorales, MuseData, Piano-midi.de. An RBM's likelihood is estimated, that of a model
with latent variables bounded. Those of RNN-NADE as of 2017, DMM, STORN and LV-RNN are
as Krishnan et al. (2017, arXiv 1609.09869), table 4, have them."""
PUBLISHED_SETS = "nottingham", "jsb_chorales", "muse_data", "piano_midi"
