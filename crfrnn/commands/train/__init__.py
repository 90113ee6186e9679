"""`crfrnn train`: a recipe, stage by stage."""
