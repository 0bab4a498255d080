"""Ray and MLflow: jobs, stage cache, tracking, clusters; knows nothing of architectures.

Its rooms, each of which uses only those after it: ``jobs`` (what runs), ``tracking`` (what is
shown in MLflow), ``cluster`` (where it runs), ``store`` (what is there: the source of truth).
"""

from __future__ import annotations
