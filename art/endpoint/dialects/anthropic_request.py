"""The bodies of requests of Anthropic's messages, checked."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from art._internal.validation import ShortList
from art.endpoint.constraints import AUTO, ToolSelection, choose_tools, json_schema_rule
from art.endpoint.dialects.anthropic_blocks import blocks_text, content_blocks, conversation
from art.endpoint.dialects.openai_chat_request import Effort, effort_kwargs
from art.endpoint.dialects.openai_tools import ToolName
from art.endpoint.fields import Count, JsonObject, Neutral, RequestBody
from art.endpoint.sampling import Stops
from art.endpoint.sampling_fields import Temperature, TopK, TopP, checked_stops
from art.endpoint.turns import TurnRequest
from art.endpoint.types import SamplingOptions


class Tool(BaseModel):
    """A tool of the client. Tools that Anthropic's servers run have other types."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["custom"] | None = None
    name: ToolName
    description: str | None = None
    input_schema: JsonObject

    def chat_tool(self) -> dict[str, Any]:
        """The tool in the form of chat completions."""
        described = {} if self.description is None else {"description": self.description}
        function = {"name": self.name, **described, "parameters": self.input_schema}
        return {"type": "function", "function": function}


class ToolChoice(RequestBody):
    """The choice of a tool, where it needs no name."""

    PLACE = "tool_choice."

    type: Literal["auto", "any", "none"]
    disable_parallel_tool_use: bool | None = None


class NamedTool(RequestBody):
    """The one tool that must be called."""

    PLACE = "tool_choice."

    type: Literal["tool"]
    name: ToolName
    disable_parallel_tool_use: bool | None = None


class Thinking(RequestBody):
    """The switch for thinking before the answer; a budget is not kept."""

    PLACE = "thinking."
    NO_EFFECT = frozenset({"budget_tokens", "display"})

    type: Literal["enabled", "disabled", "adaptive"]


class OutputFormat(RequestBody):
    """A schema that the text must follow."""

    PLACE = "output_config.format."

    type: Literal["json_schema"]
    schema_: JsonObject = Field(alias="schema")


class OutputConfig(RequestBody):
    """The form of the output, and the effort that is made for it."""

    PLACE = "output_config."
    NEUTRAL: ClassVar[Neutral] = {"task_budget": ()}

    effort: Effort | None = None
    format: OutputFormat | None = None


class CountTokensRequest(RequestBody):
    """The body of ``POST /v1/messages/count_tokens``."""

    NEUTRAL: ClassVar[Neutral] = {
        "container": (),
        "context_management": (),
        "mcp_servers": ([],),
        "speed": ("standard",),
    }
    NO_EFFECT = frozenset({"cache_control", "betas", "user_profile_id", "workspace_id"})

    model: str
    messages: Annotated[ShortList[JsonObject], Field(min_length=1)]
    system: Any = None
    tools: ShortList[Tool] | None = None
    tool_choice: Annotated[ToolChoice | NamedTool, Field(discriminator="type")] | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    chat_template_kwargs: JsonObject | None = None

    @field_validator("messages")
    @classmethod
    def _read_messages(cls, messages: list[JsonObject]) -> list[JsonObject]:
        converted = conversation(messages)
        if converted[-1]["role"] == "assistant":
            raise ValueError("the last message is the assistant's; its turn cannot be continued")
        return converted

    @field_validator("system")
    @classmethod
    def _read_system(cls, system: object) -> str:
        return blocks_text(content_blocks("" if system is None else system, "system"), "system")

    def turn_request(self, stops: Stops, options: SamplingOptions) -> TurnRequest:
        """This request in no dialect.

        Args:
            stops: What ends the turn.
            options: The sampling options.

        Raises:
            RequestError: The choice of tools makes no sense (400).
        """
        config = self.output_config or OutputConfig()
        rule = None if config.format is None else json_schema_rule(config.format.schema_)
        tools, constraint = choose_tools(
            [tool.chat_tool() for tool in self.tools or []], self._selection(), rule
        )
        system = [{"role": "system", "content": self.system}] if self.system else []
        choice = self.tool_choice
        return TurnRequest(
            model=self.model,
            messages=[*system, *self.messages],
            tools=tools,
            constraint=constraint,
            parallel_tool_calls=choice is None or choice.disable_parallel_tool_use is not True,
            template_kwargs=effort_kwargs(config.effort, self._template_kwargs()),
            stops=stops,
            options=options,
        )

    def _selection(self) -> ToolSelection:
        if isinstance(self.tool_choice, NamedTool):
            return ToolSelection("required", name=self.tool_choice.name)
        if self.tool_choice is None or self.tool_choice.type == "auto":
            return AUTO
        return ToolSelection("required" if self.tool_choice.type == "any" else "none")

    def _template_kwargs(self) -> JsonObject:
        thinking = {}
        if self.thinking is not None and self.thinking.type != "adaptive":
            thinking = {"enable_thinking": self.thinking.type == "enabled"}
        return {**thinking, **(self.chat_template_kwargs or {})}


class MessagesRequest(CountTokensRequest):
    """The body of ``POST /v1/messages``."""

    NEUTRAL: ClassVar[Neutral] = {**CountTokensRequest.NEUTRAL, "diagnostics": ()}
    NO_EFFECT = CountTokensRequest.NO_EFFECT | {"inference_geo", "metadata", "service_tier"}

    max_tokens: Count
    stop_sequences: ShortList[str] | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    stream: bool | None = None
    return_token_ids: bool | None = None

    @field_validator("stop_sequences")
    @classmethod
    def _check_stop(cls, stops: list[str] | None) -> list[str] | None:
        return checked_stops(stops)

    def sampled_turn(self) -> TurnRequest:
        """This request in no dialect, with its sampling options.

        Raises:
            RequestError: The choice of tools makes no sense (400).
        """
        options = SamplingOptions(
            max_tokens=self.max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k or -1,
        )
        return self.turn_request(Stops(self.stop_sequences or []), options)
