"""An MCP server of a small shop, over standard input and output."""

import time

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server: MCPServer = MCPServer("shop")


@server.tool()
def price(fruit: str, count: int = 1) -> str:
    """Say what fruits cost."""
    prices = {"apple": 2, "pear": 3}
    if fruit not in prices:
        raise ToolError(f"the shop has no {fruit}")
    return f"{prices[fruit] * count} euros"


@server.tool()
def wait(seconds: float) -> str:
    """Wait for a shop assistant."""
    time.sleep(seconds)
    return "here I am"


@server.tool()
def stock() -> dict[str, int]:
    """Count the fruits."""
    return {"apple": 5, "pear": 0}


@server.resource("shop://hours")
def hours() -> str:
    """The opening hours."""
    return "from 9 to 5"


if __name__ == "__main__":
    server.run()
