"""What the rooms say to each other: frozen data and its JSON form.

Part of the job's zipapp: standard library only, Python 3.9, no I/O.
"""
