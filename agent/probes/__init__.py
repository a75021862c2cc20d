"""Does a remote cluster's data plane answer? Asked by connecting to its nodes through the mesh."""
