from .backend import TinkerBackend as TinkerBackend
from .connection import Connection as Connection
from .service import TinkerService as TinkerService
