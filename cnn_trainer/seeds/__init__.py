"""Groups of runs that differ only in their seed: how much of a result is luck."""
