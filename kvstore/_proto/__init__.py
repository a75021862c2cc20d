"""etcd's messages: ``etcd.proto`` is the source, ``etcd.desc`` and ``etcd_pb2.pyi`` are what protoc makes of it.

    python -m grpc_tools.protoc -I. --descriptor_set_out=etcd.desc --pyi_out=. etcd.proto

A descriptor set is shipped instead of generated code, because generated code refuses older protobuf runtimes.
"""
