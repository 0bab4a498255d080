"""One file per stage: config in, result out.

Each has a `work` function, which runs in the workers of a Ray Train job and does the heavy imports
itself, and a `make_…` function, which runs in the driver: it has the stage or gets it made.
"""
