"""`crfrnn data check`: what is in a data set, and what is wrong with it."""
