"""Losses as modules."""

from __future__ import annotations

from typing import Annotated

from spiral.nn import functional
from spiral.nn.arguments import NotNegative, Positive, Probability, choice, flag, integer, real
from spiral.nn.loss_functions import REDUCTIONS
from spiral.nn.module import Module
from spiral.schema_values import OneOf
from spiral.tensor import Tensor

Reduction = Annotated[str, OneOf(*REDUCTIONS)]


class _Loss(Module):
    _reductions: tuple[str, ...] = REDUCTIONS

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction = choice(type(self).__name__, "reduction", reduction, self._reductions)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class _ClassLoss(_Loss):
    weight: Tensor | None

    def __init__(self, weight: Tensor | None, ignore_index: int, reduction: Reduction) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = integer(type(self).__name__, "ignore_index", ignore_index)

    def extra_repr(self) -> str:
        return f"ignore_index={self.ignore_index}, {super().extra_repr()}"


class CrossEntropyLoss(_ClassLoss):
    """See `spiral.nn.functional.cross_entropy`; the weight is a buffer."""

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: Probability = 0.0,
        z_loss: NotNegative = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(weight, ignore_index, reduction)
        self.label_smoothing = real("CrossEntropyLoss", "label_smoothing", label_smoothing, 0.0, 1.0)
        self.z_loss = real("CrossEntropyLoss", "z_loss", z_loss, 0.0)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(
            logits,
            targets,
            self.weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            z_loss=self.z_loss,
            reduction=self.reduction,
        )


class LinearCrossEntropyLoss(_Loss):
    """See `spiral.nn.functional.linear_cross_entropy`; called with x, the weight of a `Linear`, and targets."""

    def __init__(
        self,
        ignore_index: int = -100,
        label_smoothing: Probability = 0.0,
        z_loss: NotNegative = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        self.ignore_index = integer("LinearCrossEntropyLoss", "ignore_index", ignore_index)
        self.label_smoothing = real("LinearCrossEntropyLoss", "label_smoothing", label_smoothing, 0.0, 1.0)
        self.z_loss = real("LinearCrossEntropyLoss", "z_loss", z_loss, 0.0)

    def forward(self, x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return functional.linear_cross_entropy(
            x,
            weight,
            targets,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            z_loss=self.z_loss,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        return f"ignore_index={self.ignore_index}, {super().extra_repr()}"


class NLLLoss(_ClassLoss):
    """See `spiral.nn.functional.nll_loss`; the weight is a buffer."""

    def __init__(self, weight: Tensor | None = None, ignore_index: int = -100, reduction: Reduction = "mean") -> None:
        super().__init__(weight, ignore_index, reduction)

    def forward(self, log_probs: Tensor, targets: Tensor) -> Tensor:
        return functional.nll_loss(
            log_probs, targets, self.weight, ignore_index=self.ignore_index, reduction=self.reduction
        )


class MSELoss(_Loss):
    """See `spiral.nn.functional.mse_loss`."""

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return functional.mse_loss(x, target, self.reduction)


class L1Loss(_Loss):
    """See `spiral.nn.functional.l1_loss`."""

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return functional.l1_loss(x, target, self.reduction)


class SmoothL1Loss(_Loss):
    """See `spiral.nn.functional.smooth_l1_loss`."""

    def __init__(self, beta: NotNegative = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.beta = real("SmoothL1Loss", "beta", beta, 0.0)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return functional.smooth_l1_loss(x, target, self.beta, self.reduction)


class HuberLoss(_Loss):
    """See `spiral.nn.functional.huber_loss`."""

    def __init__(self, delta: Positive = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.delta = real("HuberLoss", "delta", delta, 0.0, above=True)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return functional.huber_loss(x, target, self.delta, self.reduction)


class BCEWithLogitsLoss(_Loss):
    """See `spiral.nn.functional.binary_cross_entropy_with_logits`; a tensor of weights is a buffer."""

    pos_weight: Tensor | float | None

    def __init__(self, pos_weight: Tensor | NotNegative | None = None, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        if pos_weight is None or isinstance(pos_weight, Tensor):
            self.register_buffer("pos_weight", pos_weight)
        else:
            self.pos_weight = real("BCEWithLogitsLoss", "pos_weight", pos_weight, 0.0)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, target, self.pos_weight, self.reduction)


class BCELoss(_Loss):
    """See `spiral.nn.functional.binary_cross_entropy`."""

    def forward(self, probs: Tensor, target: Tensor) -> Tensor:
        return functional.binary_cross_entropy(probs, target, self.reduction)


class KLDivLoss(_Loss):
    """See `spiral.nn.functional.kl_div`."""

    _reductions = (*REDUCTIONS, "batchmean")

    def __init__(
        self, reduction: Annotated[str, OneOf(*REDUCTIONS, "batchmean")] = "mean", log_target: bool = False
    ) -> None:
        super().__init__(reduction)
        self.log_target = flag("KLDivLoss", "log_target", log_target)

    def forward(self, log_probs: Tensor, target: Tensor) -> Tensor:
        return functional.kl_div(log_probs, target, self.reduction, self.log_target)
