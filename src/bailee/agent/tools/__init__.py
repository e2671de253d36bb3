"""The tools that the model may call."""

from collections.abc import Mapping

from bailee.agent.tools.failures import Failed
from bailee.agent.tools.protocol import Preview, Tool, Workspace
from bailee.agent.tools.reading import ReadTool
from bailee.agent.tools.running import RunTool
from bailee.agent.tools.searching import ListTool, SearchTool
from bailee.agent.tools.writing import EditTool, WriteTool

TOOLS: Mapping[str, Tool] = {
    tool.name: tool for tool in (ReadTool(), WriteTool(), EditTool(), SearchTool(), ListTool(), RunTool())
}

__all__ = ["TOOLS", "Failed", "Preview", "Tool", "Workspace"]
