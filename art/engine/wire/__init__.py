"""The Tinker wire: JSON bodies, protobuf messages, HTTP status codes. Nothing behind it knows them."""
