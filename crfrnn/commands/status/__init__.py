"""`crfrnn status`: how far the shards of a run are."""
