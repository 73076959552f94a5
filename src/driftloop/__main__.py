"""`python -m driftloop`."""

from driftloop.cli import main

main()
