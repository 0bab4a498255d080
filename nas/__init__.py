"""BN-NAS: neural architecture search with batch normalization (Chen et al., ICCV 2021).

This package is the method and nothing else: search spaces, the weight-sharing supernet, its
training, the indicators that rank architectures, and the searchers that find the best one under a
budget. It needs PyTorch and NumPy, writes no file and knows no cluster; `orchestration` knows how
to run jobs, and `experiments` brings the two together.

Importing `nas` imports nothing else. `nas.space`, `nas.cost`, `nas.search`, `nas.sampling`,
`nas.early_bird` and `nas.ranking` need no PyTorch, so that a driver process stays light.
"""
