"""Pictures of results: overlays, legends, figures side by side, charts."""
