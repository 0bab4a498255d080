"""Ray and MLflow: jobs, stage cache, tracking, clusters; knows nothing of architectures.

Modules, from the bottom up:

``json_text``
    JSON that carries NaN and infinity.
``fingerprint``
    What decides a stage's result, as one SHA-256.
``storage``, ``stage_store``
    Finished stages on a folder or an object store, complete or absent: the source of truth.
``params``, ``mlflow_server``, ``tracking``
    The projection of that store into MLflow: one run per result.
``live_run``, ``group_run``
    The run of a stage that is being made, and the one that a cell's or a sweep's are nested under.
``claims``, ``failure_log``
    Who is making which stage at this moment, and why one has failed.
``tracked_model``
    A stage's network as an MLflow model; the best one registered.
``worker``
    What a stage's training function sees of the world, with Ray and without.
``scaling``, ``torch_trainer``, ``progress``, ``failure``, ``job``, ``train_job``
    One Ray Train job: its size, its process group, its epochs as they come, what follows a
    failure, and the job itself.
``scorer_pool``, ``scoring_job``
    A job whose actors score the candidates of one round in parallel.
``stage``, ``stage_runs``, ``stage_runner``
    Have it or make it: one stage, among all that need it at the same time, and its run.
``cluster``, ``capacity``
    A Ray cluster to run on, an existing one or one on this machine's loopback, and what it holds.
``sweep``, ``trial_listener``
    Many tasks at once as Ray Tune trials.
``dashboard``, ``submission``
    Ray's Jobs API: sending the whole to a cluster elsewhere.
"""

from __future__ import annotations
