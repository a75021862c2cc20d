"""The kernel edge: map layouts, maps, programs, links. Imports nothing of ours."""
