"""Modules, under PyTorch's names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spiral.nn import functional, init
from spiral.nn.activation import (
    ELU,
    GELU,
    Flatten,
    Identity,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from spiral.nn.attention import MultiHeadAttention
from spiral.nn.container import ModuleDict, ModuleList, Sequential
from spiral.nn.conv import Conv1d, Conv2d
from spiral.nn.dropout import Dropout
from spiral.nn.embedding import Embedding
from spiral.nn.feedforward import GeGLU, SwiGLU
from spiral.nn.linear import Linear
from spiral.nn.loss import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    LinearCrossEntropyLoss,
    MSELoss,
    NLLLoss,
    SmoothL1Loss,
)
from spiral.nn.loss_catalog import LOSSES, create_loss
from spiral.nn.module import Module, RemovableHandle
from spiral.nn.norm import BatchNorm1d, BatchNorm2d, GroupNorm, LayerNorm, RMSNorm
from spiral.nn.parameter import Parameter
from spiral.nn.pool import AdaptiveAvgPool1d, AdaptiveAvgPool2d, AvgPool1d, AvgPool2d, MaxPool1d, MaxPool2d
from spiral.nn.recurrent import GRU, LSTM
from spiral.nn.rotary import RotaryEmbedding
from spiral.nn.state import LoadReport, StateDictError

__all__ = [
    "ELU",
    "GELU",
    "GRU",
    "LOSSES",
    "LSTM",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AvgPool1d",
    "AvgPool2d",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv1d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "GeGLU",
    "GroupNorm",
    "HuberLoss",
    "KLDivLoss",
    "Identity",
    "L1Loss",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LinearCrossEntropyLoss",
    "LoadReport",
    "LogSoftmax",
    "MSELoss",
    "MaxPool1d",
    "MaxPool2d",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiHeadAttention",
    "NLLLoss",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "RemovableHandle",
    "RotaryEmbedding",
    "Sequential",
    "SiLU",
    "SmoothL1Loss",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "StateDictError",
    "SwiGLU",
    "Tanh",
    "create_loss",
    "functional",
    "init",
]

if TYPE_CHECKING:
    from spiral.nn.discovery import (
        ModuleCategory as ModuleCategory,
    )
    from spiral.nn.discovery import (
        ModuleDiscoveryRegistry as ModuleDiscoveryRegistry,
    )
    from spiral.nn.discovery import (
        ModuleMetadata as ModuleMetadata,
    )
    from spiral.nn.discovery import (
        ModulePipelineBuilder as ModulePipelineBuilder,
    )
else:

    def __getattr__(name: str) -> object:
        # loaded at first use: a model that is written as a class does not pay for signatures and files
        if name in ("ModuleCategory", "ModuleDiscoveryRegistry", "ModuleMetadata", "ModulePipelineBuilder"):
            from spiral.nn import discovery

            return getattr(discovery, name)
        raise AttributeError(f"module 'spiral.nn' has no attribute {name!r}")
