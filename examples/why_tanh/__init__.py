"""Why tanh and not sigmoid, and why gates: three experiments, measured and drawn.

`slopes` compares the slopes of the two functions. `descent` compares gradient descent
with positive and with centered inputs. `memory` measures how far back the state of a
cell depends on the past. Each has a `measure` and a `plot` of what was measured.
`models` makes or loads the models of `memory`.
"""
