from .backend import TinkerBackend as TinkerBackend
from .connection import Connection as Connection
from .openai_server import OpenAIServer as OpenAIServer
from .service import TinkerService as TinkerService
