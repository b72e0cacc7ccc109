"""One file for each kind of peer; `child.py` says what they define."""
