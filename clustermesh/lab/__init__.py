"""The lab: a real mesh on one Linux machine, made of namespaces, real etcds and real agents."""
