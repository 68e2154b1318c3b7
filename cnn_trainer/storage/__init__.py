"""Files that a kill at any instant leaves whole, and JSON that is strict both ways."""
