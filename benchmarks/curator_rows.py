"""Lets curator ask the rows of `in.jsonl`, for `batch_tools.py`; runs with curator's own Python."""

import json
import sys
from pathlib import Path
from typing import Any

from bespokelabs import curator  # type: ignore[import-not-found]  # only where curator is measured


class Rows(curator.LLM):  # type: ignore[misc]  # the same
    """A prompt of each row, an answer beside its number."""

    def prompt(self, row: dict[str, Any]) -> str:
        """Give a row's prompt."""
        return str(row["prompt"])

    def parse(self, row: dict[str, Any], answer: str) -> dict[str, Any]:
        """Keep an answer."""
        return {"id": row["id"], "answer": answer}


def main(base_url: str, concurrency: int) -> None:
    """Ask all rows."""
    rows = [json.loads(line) for line in Path("in.jsonl").read_text().splitlines()]
    limits = {"max_requests_per_minute": 10**8, "max_tokens_per_minute": 10**10}
    asked = Rows(
        model_name="gpt-4o-mini",
        backend="openai",
        backend_params={
            "base_url": base_url,
            "api_key": "none",
            "max_concurrent_requests": concurrency,
            **limits,
        },
    )
    asked(rows, working_dir="work").dataset.to_json("out.jsonl")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
