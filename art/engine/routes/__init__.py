"""The wire's endpoints, by subject."""

from art.engine.routes import (
    downloads,
    futures,
    sampling,
    service,
    sessions,
    training,
    training_runs,
)

ROUTERS = (
    service.router,
    sessions.router,
    training.router,
    sampling.router,
    futures.router,
    training_runs.router,
    downloads.router,
)
