"""Tools and resources of an MCP server, as plain records."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, cast

from openai.types.chat.chat_completion_tool_param import ChatCompletionToolParam


@dataclass
class MCPTool:
    """A tool.

    Attributes:
        name: Its name.
        description: A description for the model.
        parameters: The JSON schema of its arguments.
    """

    name: str
    description: str
    parameters: dict[str, Any]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make a tool from what :meth:`to_dict` gives, or from MCP's own JSON."""
        parameters = data.get("parameters", data.get("inputSchema")) or {}
        return cls(data.get("name") or "", data.get("description") or "", dict(parameters))

    def to_dict(self) -> dict[str, Any]:
        """Render the tool as JSON values."""
        return asdict(self)

    def to_tool_schema(self) -> ChatCompletionToolParam:
        """Render the tool as ``chat.completions.create(tools=…)`` takes it."""
        return cast(ChatCompletionToolParam, {"type": "function", "function": self.to_dict()})


@dataclass
class MCPResource:
    """A resource.

    Attributes:
        uri: Its address.
        name: Its name.
        description: A description.
        mime_type: The type of its content; ``None`` where the server does not say.
    """

    uri: str
    name: str
    description: str
    mime_type: str | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make a resource from what :meth:`to_dict` gives, or from MCP's own JSON."""
        return cls(
            data.get("uri") or "",
            data.get("name") or "",
            data.get("description") or "",
            data.get("mimeType") or data.get("mime_type"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Render the resource as JSON values, by MCP's names."""
        fields = {"uri": self.uri, "name": self.name, "description": self.description}
        return {**fields, "mimeType": self.mime_type} if self.mime_type else fields
