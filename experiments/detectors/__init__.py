"""Detectors from the outside: what is asked for, what has to be made, what is done with them.

Nothing here imports MMDetection before it is needed; `detection` is where it lives, and
`experiments.stages.detect` what trains with it.
"""
