"""Metrics of frames, exact over a whole data set.

Shapes: `batch` sequences, `time` steps, `notes` columns of a piano roll. Every
metric adds up sums and counts over steps or sequences and divides once, in `result`.
The result therefore does not depend on batch size, order, padding and lengths, as long
as the weights say which steps count: pass these metrics to
`compile(weighted_metrics=[...])`.
"""

import math
from typing import Any

import keras
from keras import ops

# Not public, but only Keras knows where a backend keeps the mask of a tensor.
from keras.src.backend.common.masking import get_keras_mask

from keras_gated.datasets import checks
from keras_gated.losses import bernoulli_nll, weigh_steps
from keras_gated.mixture import check_sizes, gaussian_mixture_nll

Tensor = Any


class FrameMetric(keras.metrics.Metric):
    """Abstract base of metrics that keep sums over weighted steps.

    Args:
        totals: The names of the sums that the metric keeps.
        name: The metric's name in logs.
        dtype: The dtype of the computation and of the totals. Default:
            `keras.config.floatx()`.
    """

    def __init__(self, totals: tuple[str, ...], name: str, dtype: str | None) -> None:
        super().__init__(name=name, dtype=dtype)
        self._totals = {
            total: self.add_variable(
                shape=(), initializer="zeros", dtype=self.dtype, name=total
            )
            for total in totals
        }

    def _frames(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Targets, logits `(..., notes)` and weights `(...)`, Keras's mask applied."""
        mask = get_keras_mask(y_pred)
        y_true = ops.convert_to_tensor(y_true, dtype=self.dtype)
        y_pred = ops.convert_to_tensor(y_pred, dtype=self.dtype)
        self._check_shapes(y_true, y_pred)
        steps = ops.shape(y_pred)[:-1]
        weights = ops.ones(steps, dtype=self.dtype)
        for weight in (sample_weight, mask):
            if weight is not None:
                weights = weights * self._spread(weight, len(steps))
        return y_true, y_pred, weights

    def _check_shapes(self, y_true: Tensor, y_pred: Tensor) -> None:
        if tuple(y_true.shape[-1:]) != tuple(y_pred.shape[-1:]) or (
            len(y_true.shape) != len(y_pred.shape)
        ):
            raise ValueError(
                f"{type(self).__name__} takes targets and logits of one shape, "
                f"(batch, time, notes). Received: y_true.shape={y_true.shape}, "
                f"y_pred.shape={y_pred.shape}"
            )

    def _spread(self, weight: Tensor, rank: int) -> Tensor:
        """The weights of steps or of whole sequences, reshaped to multiply steps."""
        weight = weigh_steps(weight, rank, self.dtype)
        if len(weight.shape) > rank:
            raise ValueError(
                f"{type(self).__name__} takes a `sample_weight` of shape "
                "(batch, time) or (batch,): one weight per step, not per note. "
                f"Received: sample_weight.shape={tuple(weight.shape)}"
            )
        return weight

    def _add(self, **values: Tensor) -> None:
        for total, value in values.items():
            self._totals[total].assign_add(ops.sum(value))

    def reset_state(self) -> None:
        for total in self._totals.values():
            total.assign(ops.zeros((), dtype=total.dtype))


class NLL(FrameMetric):
    """Abstract base of metrics of the mean negative log-likelihood of a set.

    Args:
        average: `"step"` or `"sequence"`.
        name: The metric's name in logs. Default: `default_name`, followed by
            `_sequence` for `average="sequence"`.
        dtype: The dtype of the computation and of the totals.
    """

    def __init__(self, average: str, name: str | None, dtype: str | None) -> None:
        checks.one_of("average", average, ("step", "sequence"))
        default = self.default_name + "_sequence" * (average == "sequence")
        super().__init__(("nats", "count"), name=name or default, dtype=dtype)
        self.average = average
        self._direction = "down"  # read by Keras's callbacks with a `monitor`

    def _nats(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The negative log-likelihood of every step, `(...)`."""
        raise NotImplementedError

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        y_true, y_pred, weights = self._frames(y_true, y_pred, sample_weight)
        nats = self._nats(y_true, y_pred)
        nats = ops.where(weights > 0, nats * weights, ops.zeros_like(nats))
        if self.average == "step":
            self._add(nats=nats, count=weights)
        else:
            if len(weights.shape) != 2:
                raise ValueError(
                    f"{type(self).__name__}(average='sequence') takes predictions "
                    "of shape (batch, time, ...). Received: "
                    f"y_pred.shape={tuple(y_pred.shape)}"
                )
            total = ops.sum(weights, axis=1)
            means = ops.divide_no_nan(ops.sum(nats, axis=1), total)
            self._add(nats=means, count=ops.cast(total > 0, self.dtype))

    def result(self) -> Tensor:
        return ops.divide_no_nan(
            ops.convert_to_tensor(self._totals["nats"]),
            ops.convert_to_tensor(self._totals["count"]),
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "average": self.average}


@keras.saving.register_keras_serializable(package="keras_gated")
class FrameNLL(NLL):
    """Negative log-likelihood of binary frames over a whole set, in nats per step.

    `average="step"` is the mean over all steps of the set; `average="sequence"` is
    the mean over the sequences of the mean of each. The literature uses both; for
    sequences of different lengths they differ by up to one nat for the same model.

    Args:
        average: `"step"` (default) or `"sequence"`.
        name: Default: `"frame_nll"`, or `"frame_nll_sequence"`.
        dtype: The dtype of computation and totals. Default:
            `keras.config.floatx()`.

    Call arguments:
        y_true: Zeros and ones, `(batch, time, notes)`.
        y_pred: Logits, `(batch, time, notes)`.
        sample_weight: `(batch, time)` or `(batch,)`; 0 for padding. A sequence whose
            weights are all 0 does not count; any other counts once.

    Raises:
        ValueError: `average` is neither of the two, or shapes do not match.

    Example:

    >>> import numpy as np
    >>> from keras_gated.metrics import FrameNLL
    >>> metric = FrameNLL()
    >>> metric.update_state(np.zeros((2, 5, 88)), np.zeros((2, 5, 88)))
    >>> round(float(metric.result()), 3)  # 88 log(2)
    60.997
    """

    default_name = "frame_nll"

    def __init__(
        self,
        average: str = "step",
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(average, name, dtype)

    def _nats(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return bernoulli_nll(y_true, y_pred)


@keras.saving.register_keras_serializable(package="keras_gated")
class EventNLL(NLL):
    """Negative log-likelihood of real-valued events over a whole set, in nats per step.

    Averages are those of `FrameNLL`; the likelihood is that of
    `keras_gated.losses.GaussianMixtureNLL`.

    Args:
        components: K, the number of Gaussians. Default: 20.
        event_dim: E, the number of values of an event. Default: 10.
        average: `"step"` (default) or `"sequence"`.
        std: The standard deviation by which the events were divided. Adds
            `E log(std)`, which gives the figure of the events in their original
            unit. Default: 1.
        name: Default: `"event_nll"`, or with `_sequence`.
        dtype: The dtype of computation and totals. Default:
            `keras.config.floatx()`.

    Call arguments:
        y_true: Events, `(batch, time, E)`.
        y_pred: Parameters, `(batch, time, K * (1 + 2 * E))`.
        sample_weight: `(batch, time)` or `(batch,)`; 0 for padding.

    Raises:
        ValueError: An argument is out of its range, or shapes do not match.

    Example:

    >>> import numpy as np
    >>> from keras_gated import GaussianMixture
    >>> from keras_gated.metrics import EventNLL
    >>> metric = EventNLL(components=3, event_dim=2)
    >>> parameters = GaussianMixture(3, 2)(np.zeros((4, 5, 7)))
    >>> metric.update_state(np.zeros((4, 5, 2)), parameters)
    """

    default_name = "event_nll"

    def __init__(
        self,
        components: int = 20,
        event_dim: int = 10,
        average: str = "step",
        std: float = 1.0,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(average, name, dtype)
        self.components, self.event_dim = check_sizes(components, event_dim)
        self.std = checks.number("std", std, above=0)

    def _check_shapes(self, y_true: Tensor, y_pred: Tensor) -> None:
        events = (*tuple(y_pred.shape[:-1]), self.event_dim)
        if len(y_true.shape) != len(events) or y_true.shape[-1] != self.event_dim:
            raise ValueError(
                f"{type(self).__name__} takes events of shape (batch, time, "
                f"{self.event_dim}). Received: y_true.shape={tuple(y_true.shape)}, "
                f"y_pred.shape={tuple(y_pred.shape)}"
            )

    def _nats(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        nats = gaussian_mixture_nll(y_true, y_pred, self.components, self.event_dim)
        return nats + self.event_dim * math.log(self.std)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "components": self.components,
            "event_dim": self.event_dim,
            "std": self.std,
        }


class NoteCounts(FrameMetric):
    """Abstract base of metrics of true and false positives and false negatives."""

    def __init__(self, threshold: float, name: str, dtype: str | None) -> None:
        self.threshold = checks.number("threshold", threshold, above=0, below=1)
        totals = ("true_positives", "false_positives", "false_negatives")
        super().__init__(totals, name=name, dtype=dtype)
        self._direction = "up"  # read by Keras's callbacks with a `monitor`

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        y_true, y_pred, weights = self._frames(y_true, y_pred, sample_weight)
        weights = ops.expand_dims(weights, -1)
        on = y_true > 0.5
        played = y_pred > math.log(self.threshold / (1 - self.threshold))
        self._add(
            true_positives=weights * ops.cast(on & played, self.dtype),
            false_positives=weights * ops.cast(~on & played, self.dtype),
            false_negatives=weights * ops.cast(on & ~played, self.dtype),
        )

    def _counts(self) -> tuple[Tensor, Tensor]:
        """True positives, and the sum of false positives and false negatives."""
        true, false_on, false_off = (
            ops.convert_to_tensor(total) for total in self._totals.values()
        )
        return true, false_on + false_off

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "threshold": self.threshold}


@keras.saving.register_keras_serializable(package="keras_gated")
class FrameAccuracy(NoteCounts):
    """Frame-level accuracy of binary frames over a whole set.

    `TP / (TP + FP + FN)`, each summed over all notes of all steps (Bay, Ehmann
    and Downie, 2009, *Evaluation of Multiple-F0 Estimation and Tracking
    Systems*, equation 4), which is what `mir_eval.multipitch` calls accuracy.
    Correctly predicted silence adds nothing; a silent set has accuracy 0.

    Args:
        threshold: The probability above which a note is played. Default: 0.5.
        name: Default: `"frame_accuracy"`.
        dtype: The dtype of computation and totals. Default:
            `keras.config.floatx()`.

    Call arguments:
        y_true: Zeros and ones, `(batch, time, notes)`.
        y_pred: Logits, `(batch, time, notes)`.
        sample_weight: `(batch, time)` or `(batch,)`; 0 for padding.

    Raises:
        ValueError: `threshold` is not between 0 and 1, or shapes do not match.

    Example:

    >>> import numpy as np
    >>> from keras_gated.metrics import FrameAccuracy
    >>> metric = FrameAccuracy()
    >>> metric.update_state(np.array([[[1, 1, 0.0]]]), np.array([[[2, -2, 2.0]]]))
    >>> round(float(metric.result()), 4)  # 1 right, 1 missed, 1 too many
    0.3333
    """

    def __init__(
        self,
        threshold: float = 0.5,
        name: str = "frame_accuracy",
        dtype: str | None = None,
    ) -> None:
        super().__init__(threshold, name, dtype)

    def result(self) -> Tensor:
        true, false = self._counts()
        return ops.divide_no_nan(true, true + false)


@keras.saving.register_keras_serializable(package="keras_gated")
class FrameF1(NoteCounts):
    """Frame-level F1 of binary frames over a whole set.

    `2 TP / (2 TP + FP + FN)`, the harmonic mean of precision and recall, each
    count summed over all notes of all steps.

    Args:
        threshold: The probability above which a note is played. Default: 0.5.
        name: Default: `"frame_f1"`.
        dtype: The dtype of computation and totals. Default:
            `keras.config.floatx()`.

    Call arguments:
        y_true: Zeros and ones, `(batch, time, notes)`.
        y_pred: Logits, `(batch, time, notes)`.
        sample_weight: `(batch, time)` or `(batch,)`; 0 for padding.

    Raises:
        ValueError: `threshold` is not between 0 and 1, or shapes do not match.

    Example:

    >>> import numpy as np
    >>> from keras_gated.metrics import FrameF1
    >>> metric = FrameF1()
    >>> metric.update_state(np.array([[[1, 1, 0.0]]]), np.array([[[2, -2, 2.0]]]))
    >>> float(metric.result())
    0.5
    """

    def __init__(
        self,
        threshold: float = 0.5,
        name: str = "frame_f1",
        dtype: str | None = None,
    ) -> None:
        super().__init__(threshold, name, dtype)

    def result(self) -> Tensor:
        true, false = self._counts()
        return ops.divide_no_nan(2 * true, 2 * true + false)
