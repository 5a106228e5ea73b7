"""The Tinker wire: JSON bodies, protobuf, HTTP status codes. Nothing behind it knows them."""
