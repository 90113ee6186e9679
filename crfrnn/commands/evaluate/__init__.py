"""`crfrnn evaluate`: saved networks side by side on labelled photographs."""
