"""`crfrnn demo`: the job in one picture."""
