"""JSON as the service sends it."""

import json
from typing import Any

from fastapi.responses import JSONResponse


class Answer(JSONResponse):
    """A JSON answer that may quote what no encoder takes: half a surrogate pair becomes a question mark."""

    def render(self, content: Any) -> bytes:
        """The body."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")
