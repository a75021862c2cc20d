"""Message classes made from the shipped descriptor set; the types are in the stub beside this file."""

from importlib.resources import files

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_set = descriptor_pb2.FileDescriptorSet.FromString((files(__package__) / "etcd.desc").read_bytes())
_pool = descriptor_pool.DescriptorPool()  # our own: other etcd clients in the process may have registered these names
for _file in _set.file:
    _pool.Add(_file)

DESCRIPTOR = _pool.FindFileByName("etcd.proto")

globals().update(
    {name: message_factory.GetMessageClass(message) for name, message in DESCRIPTOR.message_types_by_name.items()}
)
