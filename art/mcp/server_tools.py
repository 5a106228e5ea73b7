"""Tools of a running MCP server in a rollout, over the official ``mcp`` package.

::

    from mcp import Client, StdioServerParameters, stdio_client

    async with Client(stdio_client(StdioServerParameters(command="my-server"))) as client:
        tools = [tool.to_tool_schema() for tool in await art.mcp.list_tools(client)]
        completion = await openai_client.chat.completions.create(..., tools=tools)
        choice = completion.choices[0]
        messages_and_choices.append(choice)
        for call in choice.message.tool_calls or []:
            messages_and_choices.append(await art.mcp.call_tool(client, call))
"""

import json
from collections.abc import Mapping
from typing import Any

from mcp import Client, MCPError
from openai.types.chat import ChatCompletionToolMessageParam
from openai.types.chat.chat_completion_message_tool_call import ChatCompletionMessageToolCallUnion

from art.mcp.definitions import MCPResource, MCPTool

# JSON-RPC's code of mcp for a connection that has ended.
_CONNECTION_CLOSED = -32000


async def list_tools(client: Client) -> list[MCPTool]:
    """List all tools of a server.

    Args:
        client: A connected client.

    Raises:
        mcp.MCPError: The server refuses, or is gone.
    """
    tools: list[MCPTool] = []
    cursor: str | None = None
    while True:
        page = (await client.list_tools(cursor=cursor)).model_dump(mode="json", by_alias=True)
        tools += [MCPTool.from_dict(each) for each in page["tools"]]
        cursor = page.get("nextCursor")
        if not cursor:
            return tools


async def list_resources(client: Client) -> list[MCPResource]:
    """List all resources of a server.

    Args:
        client: A connected client.

    Raises:
        mcp.MCPError: The server refuses, or is gone.
    """
    resources: list[MCPResource] = []
    cursor: str | None = None
    while True:
        page = (await client.list_resources(cursor=cursor)).model_dump(mode="json", by_alias=True)
        resources += [MCPResource.from_dict(each) for each in page["resources"]]
        cursor = page.get("nextCursor")
        if not cursor:
            return resources


async def call_tool(
    client: Client, call: ChatCompletionMessageToolCallUnion, *, timeout: float = 60.0
) -> ChatCompletionToolMessageParam:
    """Carry out a tool call of a completion on a server.

    What the model can get wrong (arguments that are no JSON object, an unknown tool, arguments
    that the tool refuses) and what the tool gets wrong become the text of the message, so that the
    model sees it; so does a tool that takes too long.

    Args:
        client: A connected client.
        call: One of ``choice.message.tool_calls``.
        timeout: Seconds that the tool may take.

    Returns:
        The message that answers the call: the text of the result, or ``Error: …``. Of content
        that is no text, its type.

    Raises:
        mcp.MCPError: The connection to the server has ended.
    """
    return {
        "role": "tool",
        "tool_call_id": call.id,
        "content": await _text_of_call(client, call, timeout),
    }


async def _text_of_call(
    client: Client, call: ChatCompletionMessageToolCallUnion, timeout: float
) -> str:
    if call.type != "function":
        return f"Error: there is no tool of type {call.type}."
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError) as error:
        return f"Error: the arguments are not JSON: {error}"
    if not isinstance(arguments, dict):
        return f"Error: the arguments must be a JSON object, not {type(arguments).__name__}."
    try:
        result = await client.call_tool(call.function.name, arguments, read_timeout_seconds=timeout)
    except MCPError as error:
        if error.error.code == _CONNECTION_CLOSED:
            raise
        return f"Error: {error.error.message}"
    return _text_of_result(result.model_dump(mode="json", by_alias=True))


def _text_of_result(result: Mapping[str, Any]) -> str:
    blocks = result.get("content") or []
    text = "\n".join(_text_of_block(block) for block in blocks)
    if not blocks and result.get("structuredContent") is not None:
        text = json.dumps(result["structuredContent"], ensure_ascii=False)
    return f"Error: {text}" if result.get("isError") else text


def _text_of_block(block: Mapping[str, Any]) -> str:
    resource = block.get("resource") or {}
    text = block.get("text", resource.get("text"))
    return text if isinstance(text, str) else f"[{block.get('type')}]"
