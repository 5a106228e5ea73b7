"""MCP: the tools of a real server over stdio, and scenarios from a real HTTP endpoint."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessageFunctionToolCall

import art.mcp
from art.errors import AnswerError, ConfigurationError, MissingAPIKeyError
from art.mcp import (
    GeneratedScenario,
    GeneratedScenarioCollection,
    MCPResource,
    MCPTool,
    complete_task_tool,
    generate_scenarios,
)
from tests.chat_server import Answer, ChatServer, chat_server


def connect() -> Any:
    """A client of the shop, in a process of its own. Not a fixture: its task must close it."""
    mcp = pytest.importorskip("mcp")
    parameters = mcp.StdioServerParameters(
        command=sys.executable, args=[str(Path(__file__).with_name("shop_server.py"))]
    )
    return mcp.Client(mcp.stdio_client(parameters))


def tool_call(name: str, arguments: str) -> ChatCompletionMessageFunctionToolCall:
    return ChatCompletionMessageFunctionToolCall.model_validate(
        {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    )


async def test_the_tools_and_resources_of_a_server_are_listed() -> None:
    async with connect() as client:
        tools = {tool.name: tool for tool in await art.mcp.list_tools(client)}
        resources = await art.mcp.list_resources(client)
    assert set(tools) == {"price", "wait", "stock"}
    assert tools["price"].description == "Say what fruits cost."
    assert tools["price"].parameters["properties"]["count"]["type"] == "integer"
    schema = tools["price"].to_tool_schema()
    assert schema["type"] == "function"
    assert schema["function"]["name"] == "price"
    assert [(each.uri, each.description) for each in resources] == [
        ("shop://hours", "The opening hours.")
    ]


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("price", '{"fruit": "apple", "count": 3}', "6 euros"),
        ("stock", "", '"apple": 5'),
        ("price", '{"fruit": "nut"}', "Error: .*the shop has no nut"),
        ("price", '{"count": "many"}', "Error: "),
        ("price", "{", "Error: the arguments are not JSON"),
        ("price", "[]", "Error: the arguments must be a JSON object, not list"),
        ("steal", "{}", "Error: .*steal"),
    ],
)
async def test_a_tool_call_is_answered_by_a_message_also_where_it_is_wrong(
    name: str, arguments: str, text: str
) -> None:
    async with connect() as client:
        message = await art.mcp.call_tool(client, tool_call(name, arguments))
    assert (message["role"], message["tool_call_id"]) == ("tool", "call_1")
    assert isinstance(message["content"], str)
    assert re.search(text, message["content"], re.DOTALL)


async def test_a_tool_that_takes_too_long_is_an_error_that_the_model_sees() -> None:
    async with connect() as client:
        call = tool_call("wait", '{"seconds": 5}')
        message = await art.mcp.call_tool(client, call, timeout=0.5)
    assert str(message["content"]).startswith("Error: ")


def test_tools_and_resources_go_through_json() -> None:
    for tool in (complete_task_tool, MCPTool("a", "b", {"type": "object"})):
        assert MCPTool.from_dict(json.loads(json.dumps(tool.to_dict()))) == tool
    assert MCPTool.from_dict({"name": "a", "inputSchema": {"x": 1}}).parameters == {"x": 1}
    for resource in (MCPResource("u", "n", "d"), MCPResource("u", "n", "d", "text/plain")):
        assert MCPResource.from_dict(resource.to_dict()) == resource


@pytest.fixture
def writer() -> Iterator[ChatServer]:
    with chat_server() as server:
        yield server


def scenarios(*difficulties: int) -> str:
    return json.dumps({"scenarios": [{"task": f"task {d}", "difficulty": d} for d in difficulties]})


async def generate(
    writer: ChatServer, count: int = 2, **options: Any
) -> GeneratedScenarioCollection:
    return await generate_scenarios(
        [complete_task_tool],
        [{"uri": "shop://hours"}],
        num_scenarios=count,
        generator_model="writer",
        generator_base_url=writer.base_url,
        **options,
    )


async def test_scenarios_are_written_for_the_tools(
    writer: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    writer.say(Answer(scenarios(1, 4)))
    collection = await generate(writer, custom_instructions="Be brief.", generator_api_key="k")
    assert list(collection) == [GeneratedScenario("task 1", 1), GeneratedScenario("task 4", 4)]
    prompt = writer.requests[0]["messages"][0]["content"]
    for part in ("complete_task", "shop://hours", "Be brief.", "exactly 2 entries"):
        assert part in prompt
    assert "task 4 (difficulty 4/5)" in capsys.readouterr().out
    assert writer.keys == ["k"]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(scenarios(1)),
        Answer(scenarios(1, 9)),
        Answer("I will not."),
        Answer("down", status=503),
        Answer(scenarios(1, 2), delay=2),
    ],
    ids=["too few", "out of range", "no JSON", "failing", "slow"],
)
async def test_a_writer_that_fails_is_an_error(writer: ChatServer, answer: Answer) -> None:
    writer.say(answer)
    with pytest.raises(AnswerError):
        await generate(writer, max_retries=0, timeout=0.5, show_preview=False)


async def test_nothing_to_write_about_and_a_missing_key_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="tools or resources"):
        await generate_scenarios([])
    with pytest.raises(MissingAPIKeyError, match="OPENROUTER_API_KEY"):
        await generate_scenarios([complete_task_tool])


def test_a_collection_is_split_filtered_summed_up_and_stored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    collection = GeneratedScenarioCollection(
        GeneratedScenario("t" * length, length) for length in (1, 2, 2, 5)
    )
    assert GeneratedScenarioCollection.from_json(collection.to_json()).to_dicts() == (
        collection.to_dicts()
    )
    train, rest = collection.split(3)
    assert (len(train), len(rest)) == (3, 1)
    assert [each.difficulty for each in collection.filter_by_difficulty(2, 4)] == [2, 2]
    assert sorted(each.difficulty for each in collection.shuffle()) == [1, 2, 2, 5]
    assert collection.get_summary() == {
        "total_scenarios": 4,
        "difficulty_distribution": {1: 1, 2: 2, 5: 1},
        "avg_difficulty": 2.5,
        "avg_task_length": 2.5,
    }
    collection.preview(n=1)
    assert capsys.readouterr().out == "1. t (difficulty 1/5)\n"
    with pytest.raises(ConfigurationError, match="train_size is 5"):
        collection.split(5)
    with pytest.raises(ConfigurationError, match="from 1 to 5, not 6"):
        GeneratedScenario("t", 6)
