"""Clusters that do not exist, for measuring: the keys and values of real ones, in any number."""
