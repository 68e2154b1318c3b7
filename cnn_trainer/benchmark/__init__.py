"""How fast this program trains, beside the plain programs that people write: measured, on anyone's machine."""
