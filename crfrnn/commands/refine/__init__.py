"""`crfrnn.refine` and `crfrnn refine`: sharpen somebody's predictions."""
