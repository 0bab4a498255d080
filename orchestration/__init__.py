"""Ray and MLflow: jobs, stage cache, tracking, clusters; knows nothing of architectures.

Modules, from the bottom up:

``json_text``
    JSON that carries NaN and infinity.
``fingerprint``
    What decides a stage's result, as one SHA-256.
``storage``, ``stage_store``
    Finished stages on a folder or an object store, complete or absent: the source of truth.
``params``, ``mlflow_server``, ``tracking``
    The projection of that store into MLflow: one run per result, live while it trains.
``worker``
    What a stage's training function sees of the world, with Ray and without.
``scaling``, ``torch_trainer``, ``progress``, ``failure``, ``train_job``
    One Ray Train job: its size, its process group, its epochs as they come, what follows a
    failure, and the job itself.
``cluster``
    A Ray cluster to run it on: an existing one, or one on this machine's loopback.
"""

from __future__ import annotations
