"""The tasks of with_verifiers.py; in a module, since its tool server imports their data."""

import verifiers.v1 as vf
from verifiers_tools import AddToolset


class AddConfig(vf.TaskConfig):
    tools: vf.ToolsetConfig = vf.ToolsetConfig()


class SayData(vf.TaskData):
    wanted: str


class SayTask(vf.Task[SayData]):
    @vf.reward(weight=1.0)
    async def says_it(self, trace: vf.Trace) -> float:
        """1 where the last message has the text that is wanted."""
        return float(self.data.wanted in (trace.last_reply or ""))


class AddTask(vf.Task[SayData, vf.State, AddConfig]):
    @classmethod
    def toolsets(cls, config: AddConfig) -> list[vf.Toolset]:
        return [AddToolset(config.tools)]

    @vf.reward(weight=1.0)
    async def says_it(self, trace: vf.Trace) -> float:
        """1 where the last message has the text that is wanted."""
        return float(self.data.wanted in (trace.last_reply or ""))
