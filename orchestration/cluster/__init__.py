"""Where it runs: a Ray cluster, what it holds, and how work is sent to one elsewhere."""
