"""Config and store in, stages out; starts and writes nothing."""
