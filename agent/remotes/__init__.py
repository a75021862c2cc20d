"""The clusters this node listens to: their configuration, their lives, what is known of them."""
