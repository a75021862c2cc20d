"""Facts in etcd: followed without loss, published without lies. Imports nothing of ours."""
