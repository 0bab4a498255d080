"""Finished stages on a folder or an object store, who makes which, and what identifies them."""
