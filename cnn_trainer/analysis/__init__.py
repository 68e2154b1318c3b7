"""What can be read off finished runs."""
