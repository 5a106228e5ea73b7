"""The wire's endpoints, by subject."""

from art.engine.routes import archive, futures, sampling, service, training

ROUTERS = (service.router, training.router, sampling.router, futures.router, archive.router)
