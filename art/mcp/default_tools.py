"""Tools that an agent has beside those of an MCP server."""

from art.mcp.definitions import MCPTool

# The agent ends its task by calling it.
complete_task_tool = MCPTool(
    name="complete_task",
    description="End the task. Call this once, when nothing is left to do.",
    parameters={
        "type": "object",
        "properties": {
            "summary": {"type": "string", "description": "A summary of what was achieved."}
        },
        "required": ["summary"],
    },
)
