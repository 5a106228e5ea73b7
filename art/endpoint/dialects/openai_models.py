"""The OpenAI dialect of the list of models: ``GET /v1/models``."""

from fastapi import APIRouter

from art.endpoint.dependencies import EndpointDependency
from art.endpoint.dialect import Dialect
from art.endpoint.served_models import ServedModel

router = APIRouter(prefix="/v1/models")
DIALECT = Dialect(router)


@router.get("")
async def _list_models(endpoint: EndpointDependency) -> dict[str, object]:
    return {"object": "list", "data": [_card(model) for model in endpoint.models.models()]}


# Names of base models hold slashes.
@router.get("/{name:path}")
async def _get_model(name: str, endpoint: EndpointDependency) -> dict[str, object]:
    return _card(endpoint.find_model(name))


def _card(model: ServedModel) -> dict[str, object]:
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": "art"}
