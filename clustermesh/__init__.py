"""The mesh's data model, its control plane and the command line."""
