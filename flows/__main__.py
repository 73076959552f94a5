"""Run the warm worker: `python -m flows`, as `driftloop up` does.

A module apart from the worker's, so that the server which fits are forked from, and which
imports what is run as main, does not import Prefect with it.
"""

if __name__ == "__main__":
    from flows.worker import main

    main()
