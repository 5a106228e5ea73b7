"""The Tinker wire: JSON bodies, protobuf messages, HTTP statuses. Nothing behind it knows them."""
