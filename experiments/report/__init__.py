"""Figures and tables from finished stages."""
