"""`crfrnn segment`: a photograph, by a trained model or from a few strokes."""
