"""The state that all routes of an endpoint share."""

from collections.abc import Sequence
from dataclasses import dataclass

from art.chat.template import ChatTemplate
from art.endpoint.errors import RequestError
from art.endpoint.served_models import ServedModel, ServedModels


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One model's endpoint.

    Attributes:
        api_key: The key that every request but ``/health`` must carry.
        models: The models that are served.
        chat_template: Renders prompts and reads completions.
        max_context_length: Context of the base model, in tokens.
        strict: Whether requests with unknown fields are refused; otherwise these are ignored, and
            named in a header.
    """

    api_key: str
    models: ServedModels
    chat_template: ChatTemplate
    max_context_length: int
    strict: bool = False

    def find_model(self, name: str) -> ServedModel:
        """Find a served model.

        Raises:
            RequestError: There is none of that name (404); names those that there are.
        """
        model = self.models.find(name)
        if model is None:
            served = ", ".join(repr(each.name) for each in self.models.models())
            raise RequestError(
                404,
                f"there is no model {name!r:.200} here; there are {served}",
                code="model_not_found",
                param="model",
            )
        return model

    def check_length(
        self, prompt_token_ids: Sequence[int], max_tokens: int | None, field: str
    ) -> None:
        """Check that a prompt and what is to be sampled fit the context.

        Args:
            prompt_token_ids: The prompt.
            max_tokens: Limit on the sampled tokens; ``None`` is the rest of the context.
            field: The field of the request that the prompt was made of.

        Raises:
            RequestError: They do not fit (400).
        """
        sampled = max_tokens or 1
        if len(prompt_token_ids) + sampled > self.max_context_length:
            raise RequestError(
                400,
                f"the prompt has {len(prompt_token_ids)} tokens and {sampled} more are to be "
                f"sampled, but the model's context is {self.max_context_length}; shorten {field} "
                "or lower the limit on sampled tokens",
                code="context_length_exceeded",
                param=field,
            )
