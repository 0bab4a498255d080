"""One file per stage: config in, result out.

Each has a `make_…` function, which runs in the driver: it has the stage or gets it made. What
makes it is `work` in the workers of a Ray Train job, or `make_scorer` in the actors of a scoring
job; both do the heavy imports themselves.
"""
