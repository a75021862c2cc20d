"""A packet's way, put in order and judged."""
