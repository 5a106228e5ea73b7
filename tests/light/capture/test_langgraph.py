"""Agents of LangGraph and LangChain, with the real libraries where they are installed."""

import importlib.util
from typing import Any

import pytest

import art
from art.errors import CaptureError, ConfigurationError, MissingExtraError
from art.types import Choice
from tests.light.capture.conftest import Echo
from tests.light.capture.test_context import Model, assert_trained_once, shape

INSTALLED = importlib.util.find_spec("langchain_openai") is not None
needs_langgraph = pytest.mark.skipif(not INSTALLED, reason="needs the extra langgraph")


@pytest.mark.skipif(INSTALLED, reason="the extra is installed")
def test_the_extra_is_named_where_it_is_not_installed() -> None:
    import art.langgraph

    assert callable(art.langgraph.wrap_rollout)
    with pytest.raises(MissingExtraError, match=r"art-rl\[langgraph\]"):
        art.langgraph.init_chat_model()


@needs_langgraph
class TestWrapRollout:
    async def test_a_chain_is_captured(self, model: Model, echo: Echo) -> None:
        from art.langgraph import init_chat_model, wrap_rollout

        async def rollout(text: str, *, reward: float) -> art.Trajectory:
            answer = await init_chat_model().ainvoke(text)
            return art.Trajectory(reward=reward, metadata={"answer": str(answer.content)})

        trajectory = await wrap_rollout(model, rollout)("a", reward=0.5)
        assert shape(trajectory.messages_and_choices) == ["a", "[echo 1: a]"]
        assert (trajectory.reward, trajectory.metadata) == (0.5, {"answer": "echo 1: a"})
        assert_trained_once(trajectory, echo)

    @pytest.mark.parametrize("stream", [False, True])
    async def test_an_agent_with_tools_is_captured(
        self, model: Model, echo: Echo, stream: bool
    ) -> None:
        from langchain.agents import create_agent
        from langchain_core.tools import tool

        from art.langgraph import init_chat_model, wrap_rollout

        @tool
        def look(n: int) -> str:
            """Look up a number."""
            return f"seen {n}"

        async def rollout() -> art.Trajectory:
            agent: Any = create_agent(init_chat_model(streaming=stream), [look])
            result = await agent.ainvoke({"messages": [("user", "call look")]})
            return art.Trajectory(reward=float(len(result["messages"])))

        trajectory = await wrap_rollout(model, rollout)()
        _, call, result, last = trajectory.messages_and_choices
        assert isinstance(call, Choice)
        assert isinstance(last, Choice)
        assert call.message.tool_calls is not None
        assert not isinstance(result, Choice)
        assert result["content"] == "seen 1"
        assert result["tool_call_id"] == call.message.tool_calls[0].id  # type: ignore[typeddict-item]
        assert trajectory.reward == 4
        assert trajectory.tools is not None
        assert trajectory.additional_histories == []
        assert_trained_once(trajectory, echo)

    async def test_graphs_at_once_are_kept_apart(self, model: Model) -> None:
        from langgraph.graph import END, START, MessagesState, StateGraph

        from art.langgraph import init_chat_model, wrap_rollout

        async def rollout(number: int) -> art.Trajectory:
            chat_model = init_chat_model()

            async def ask(state: MessagesState) -> dict[str, Any]:
                return {"messages": [await chat_model.ainvoke(state["messages"])]}

            def ask_in_a_thread(state: MessagesState) -> dict[str, Any]:
                return {"messages": [chat_model.invoke([("user", f"sub {number}")])]}

            graph = StateGraph(MessagesState)
            graph.add_node("ask", ask)
            graph.add_node("sub", ask_in_a_thread)
            graph.add_edge(START, "ask")
            graph.add_edge("ask", "sub")
            graph.add_edge("sub", END)
            await graph.compile().ainvoke({"messages": [("user", str(number))]})  # type: ignore[arg-type]
            return art.Trajectory(reward=number)

        wrapped = wrap_rollout(model, rollout)
        group = await art.TrajectoryGroup(wrapped(number) for number in range(20))
        assert not group.exceptions
        for number, trajectory in enumerate(group):
            assert shape(trajectory.messages_and_choices) == [f"{number}", f"[echo 1: {number}]"]
            [sub] = trajectory.additional_histories
            assert shape(sub.messages_and_choices) == [f"sub {number}", f"[echo 1: sub {number}]"]

    async def test_what_is_no_trajectory_is_refused(self, model: Model) -> None:
        from art.langgraph import wrap_rollout

        async def rollout() -> Any:
            return "done"

        with pytest.raises(TypeError, match="it returned 'done'"):
            await wrap_rollout(model, rollout)()


@needs_langgraph
class TestInitChatModel:
    def test_outside_of_a_rollout_it_has_no_model(self) -> None:
        from art.langgraph import init_chat_model

        with pytest.raises(CaptureError, match="wrap_rollout"):
            init_chat_model()

    async def test_options_are_those_of_the_chat_model(self, model: Model) -> None:
        from art.langgraph import init_chat_model, wrap_rollout

        async def rollout() -> art.Trajectory:
            assert init_chat_model().temperature == 1.0
            assert init_chat_model(temperature=0.5, max_tokens=7).max_tokens == 7
            with pytest.raises(ConfigurationError, match="model_provider"):
                init_chat_model(model_provider="openai")
            return art.Trajectory()

        await wrap_rollout(model, rollout)()

    async def test_a_model_without_an_endpoint_is_refused(self) -> None:
        from art.langgraph import init_chat_model, wrap_rollout

        async def rollout() -> art.Trajectory:
            init_chat_model()
            return art.Trajectory()

        unregistered = art.TrainableModel(name="a", project="p", base_model="b")
        with pytest.raises(ConfigurationError, match="register"):
            await wrap_rollout(unregistered, rollout)()
