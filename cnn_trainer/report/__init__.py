"""One HTML page about a run, several runs or a search: offline, without scripts, and equal bytes from equal input."""
