"""MMDetection without its chatter; it prints while it is imported, pycocotools while it works."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep standard output and warnings from people; after an error what was printed is shown."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) as said:
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception:
            sys.stderr.write(said.getvalue())
            raise
