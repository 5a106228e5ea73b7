"""Scenarios for the tools of an MCP server, written by another model."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from openai import AsyncOpenAI
from pydantic import BaseModel, Field

from art.errors import ConfigurationError, MissingAPIKeyError
from art.mcp.definitions import MCPResource, MCPTool
from art.mcp.scenarios import GeneratedScenario, GeneratedScenarioCollection
from art.metrics import record_response_cost
from art.model_providers import PROVIDERS, open_model
from art.structured_output import CLOSED, ask

_OPENROUTER = PROVIDERS["openrouter"]

_PROMPT = """\
Write {count} tasks for an AI agent that has the tools below, and no others.

Tools:
{tools}

Resources that the tools can read:
{resources}

- Each task reads as a request of a real user who does not know the tools: it names a goal, and no
  tool.
- Each can be fulfilled with these tools and resources alone, and an answer to it can be checked.
- Together they use all of the tools, alone and combined, and no two ask for the same thing.
- Give each a difficulty from 1 (one call) to 5 (many calls that build on each other), and have
  tasks of every difficulty.
- Each asks for a short report of what was done and found.
{instructions}
Answer with one JSON object and nothing else:
{{"scenarios": [{{"task": "...", "difficulty": 1}}, ...]}}
with exactly {count} entries."""


class _Scenario(BaseModel):
    model_config = CLOSED

    task: str = Field(min_length=1)
    difficulty: int = Field(ge=1, le=5)


class _Scenarios(BaseModel):
    model_config = CLOSED

    scenarios: list[_Scenario]


async def generate_scenarios(
    tools: Sequence[MCPTool] | Sequence[Mapping[str, Any]],
    resources: Sequence[MCPResource] | Sequence[Mapping[str, Any]] = (),
    num_scenarios: int = 24,
    show_preview: bool = True,
    custom_instructions: str | None = None,
    generator_model: str = "openai/gpt-4.1-mini",
    generator_api_key: str | None = None,
    generator_base_url: str = _OPENROUTER.base_url,
    *,
    client: AsyncOpenAI | None = None,
    timeout: float = 300.0,
    max_retries: int = 2,
) -> GeneratedScenarioCollection:
    """Ask a model for tasks that an agent with these tools could be given.

    Args:
        tools: The tools, as :func:`art.mcp.list_tools` lists them, or as dicts.
        resources: The resources, likewise.
        num_scenarios: How many.
        show_preview: Write some of them to standard output.
        custom_instructions: What else the model should heed.
        generator_model: The model's name at the endpoint.
        generator_api_key: Its key; ``None`` reads ``OPENROUTER_API_KEY`` for OpenRouter, and
            ``OPENAI_API_KEY`` for any other endpoint.
        generator_base_url: Base URL of an OpenAI-compatible endpoint.
        client: A client to ask through, in place of these two.
        timeout: Seconds for one attempt.
        max_retries: How often to ask again after a failure that may pass, or an answer that cannot
            be used.

    Returns:
        The scenarios.

    Raises:
        art.errors.AnswerError: The model did not answer in time, failed, or did not write so many
            scenarios.
        art.errors.ConfigurationError: There are neither tools nor resources, or the endpoint does
            not know the key or the model.
        art.errors.MissingAPIKeyError: There is no key for OpenRouter.
    """
    if not tools and not resources:
        raise ConfigurationError("scenarios need tools or resources; both are empty")
    if num_scenarios < 1:
        raise ConfigurationError(f"num_scenarios must be at least 1, not {num_scenarios}")
    if client is None and generator_base_url == _OPENROUTER.base_url and not generator_api_key:
        generator_api_key = os.environ.get(_OPENROUTER.key_variable)
        if not generator_api_key:
            raise MissingAPIKeyError(
                f"there is no key for {generator_base_url}: set {_OPENROUTER.key_variable} in the "
                "environment, or pass generator_api_key"
            )
    prompt = _PROMPT.format(
        count=num_scenarios,
        tools=_listing(tools),
        resources=_listing(resources) or "none",
        instructions=f"- {custom_instructions}\n" if custom_instructions else "",
    )

    def check(answer: _Scenarios) -> None:
        if len(answer.scenarios) != num_scenarios:
            raise ValueError(f"{len(answer.scenarios)} scenarios, not {num_scenarios}")

    async with open_model(
        generator_model,
        base_url=None if client else generator_base_url,
        api_key=None if client else generator_api_key,
        client=client,
    ) as asked:
        answer = await ask(
            asked,
            [{"role": "user", "content": prompt}],
            _Scenarios,
            check=check,
            timeout=timeout,
            max_retries=max_retries,
            on_response=lambda response: record_response_cost(
                "scenarios", response, generator_model
            ),
        )
    collection = GeneratedScenarioCollection(
        GeneratedScenario(each.task, each.difficulty) for each in answer.scenarios
    )
    if show_preview:
        collection.print_difficulty_distribution()
        collection.preview()
    return collection


def _listing(items: Sequence[MCPTool | MCPResource] | Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(
        json.dumps(
            each.to_dict() if isinstance(each, MCPTool | MCPResource) else dict(each), default=str
        )
        for each in items
    )
