"""The cache tier: what remote clusters publish, copied into the own cluster's etcd."""
