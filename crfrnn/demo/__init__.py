"""`crfrnn demo`: the job in one picture, with nothing but what is installed. `strokes.png` is drawn by hand."""
