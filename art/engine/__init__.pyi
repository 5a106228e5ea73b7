from .app import create_app as create_app
from .checkpoints import CheckpointStore as CheckpointStore
from .core import Engine as Engine
from .serve import ServeOptions as ServeOptions
