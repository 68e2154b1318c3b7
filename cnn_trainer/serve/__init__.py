"""A server for one exported model: two standard interfaces, a page to draw on, and bounds on every request."""
