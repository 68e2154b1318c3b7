"""How fast this program trains, beside the plain programs that people write: measured, on anyone's machine.

``compare`` runs programs as whole processes, in turn, round after round, so that whatever else the machine does falls
on all of them. ``worker`` holds what those processes do.
"""
