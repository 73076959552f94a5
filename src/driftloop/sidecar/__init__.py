"""The process that answers for models which could not be lowered; services ask it by a socket.

It alone loads fitted pipelines, each once its bytes are known to be those that were trained.
"""

from driftloop.sidecar.process import Limits, attend, serve

__all__ = ["Limits", "attend", "serve"]
