"""The wire's endpoints, by subject."""

from art.engine.routes import futures, sampling, service, training, training_runs

ROUTERS = (service.router, training.router, sampling.router, futures.router, training_runs.router)
