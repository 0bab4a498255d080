"""What tracked runs say: the sections of the report as values, before anything is drawn."""
