"""The record of a dialect of the endpoint."""

from dataclasses import dataclass

from fastapi import APIRouter

from art.endpoint.errors import ErrorShape, openai_error


@dataclass(frozen=True, slots=True)
class Dialect:
    """One dialect: its routes, and the shape of its errors.

    Attributes:
        router: Its routes, with the prefix of their paths.
        error_shape: Writes an error as a JSON body.
    """

    router: APIRouter
    error_shape: ErrorShape = openai_error
