"""Tables in a terminal: as wide as their cells; a terminal wraps better than a table that cuts names."""

from rich.console import Console
from rich.table import Table
from rich.text import Text


def plain_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Make a table without lines; the columns in `right` hold numbers, and come last."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def print_table(table: Table) -> None:
    """Print a table in full width."""
    needed = Console(width=1000).measure(table).maximum
    Console(highlight=False, width=max(needed, Console().width)).print(table)


def shown(name: str) -> Text:
    """Give a name that a caller chose as it is: no markup, and nothing that a terminal would obey."""
    return Text("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name))
