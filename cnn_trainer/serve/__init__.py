"""A server for one exported model: two standard interfaces, a page to draw on, and bounds on all that comes in."""
