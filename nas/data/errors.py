"""What can be wrong with a user's image files, as `ValueError`s that callers can tell apart."""

from __future__ import annotations


class MissingDataError(ValueError):
    """Files of a data set are not there; the message says which, where, and how to get them."""


class UnreadableImageError(ValueError):
    """An image file exists in the tree but cannot be decoded; the message names it."""
