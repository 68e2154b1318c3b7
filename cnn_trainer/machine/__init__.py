"""The machine: starting TensorFlow, facts that a run records, child processes, and signals."""
