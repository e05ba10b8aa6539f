"""Where images come from: one reader per kind of source."""
