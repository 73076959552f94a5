"""A fitted pipeline to a model file that answers the same. Makes ONNX."""

from driftloop.optimize.lower import lower, with_samples
from driftloop.optimize.parity import agreement, parity

__all__ = ["agreement", "lower", "parity", "with_samples"]
