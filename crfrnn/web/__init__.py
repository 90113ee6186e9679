"""`crfrnn serve`: the page, its limits, and what visitors send."""
