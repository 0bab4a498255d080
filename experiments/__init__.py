"""The composition root: where the method, the cluster and the tracker meet.

Holds what the other packages must not know of each other: configs, stages, the report, the
command line, published experiment files (``configs/``) and the programs that measure
(``benchmarks/``).
"""
