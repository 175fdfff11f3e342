"""Published numbers that ours are held against, each with its source."""
