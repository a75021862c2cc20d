"""Why a service's connections go where they go, from the facts and from the maps themselves."""
