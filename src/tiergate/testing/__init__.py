"""The toolbox that we ship: fake clock, scripted upstream and engine, in-memory stores."""

from tiergate.testing.bank import MemoryRateBank
from tiergate.testing.behaviour import Behaviour, ToolCall
from tiergate.testing.clock import FakeClock, NothingWillHappen, run_virtual
from tiergate.testing.jobs import MemoryJobs
from tiergate.testing.journal import MemoryJournal
from tiergate.testing.limits import Limits
from tiergate.testing.log import Ended, LogEntry, MockStatistics
from tiergate.testing.process import MockProcess, run_mock
from tiergate.testing.script import Rule, Script, When
from tiergate.testing.server import MockServer
from tiergate.testing.shelf import FakeShelf
from tiergate.testing.upstream import ScriptedUpstream

__all__ = [
    "Behaviour",
    "Ended",
    "FakeClock",
    "FakeShelf",
    "Limits",
    "LogEntry",
    "MemoryJobs",
    "MemoryJournal",
    "MemoryRateBank",
    "MockProcess",
    "MockServer",
    "MockStatistics",
    "NothingWillHappen",
    "Rule",
    "Script",
    "ScriptedUpstream",
    "ToolCall",
    "When",
    "run_mock",
    "run_virtual",
]
