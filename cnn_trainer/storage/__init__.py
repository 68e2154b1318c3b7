"""Files that stay whole if the process is killed at any instant, and JSON that is strict both ways."""
