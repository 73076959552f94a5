"""driftloop: the control loop that keeps a fleet of deployed models fresh."""

__version__ = "0.6.0"
