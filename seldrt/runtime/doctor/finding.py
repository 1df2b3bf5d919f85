"""What a check finds, and how checks are kept from stopping each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from seldrt.config import SeldrtError

Verdict = Literal["pass", "warn", "fail", "skip"]


class Finding(msgspec.Struct, kw_only=True):
    """What a check found; its remedy says what to do, ``figures`` are for machines."""

    verdict: Verdict
    text: str
    remedy: str = ""
    figures: dict[str, Any] = {}


Check = Callable[[], Finding]


class Report(msgspec.Struct, kw_only=True):
    """All findings by the ids of their checks, which never change their meaning."""

    seldrt: str  # version
    ok: bool  # nothing failed
    checks: dict[str, Finding]


def good(text: str, **figures: Any) -> Finding:
    """All is well."""
    return Finding(verdict="pass", text=text, figures=figures)


def doubtful(text: str, remedy: str, **figures: Any) -> Finding:
    """It may work, and may not."""
    return Finding(verdict="warn", text=text, remedy=remedy, figures=figures)


def bad(text: str, remedy: str, **figures: Any) -> Finding:
    """It will not work."""
    return Finding(verdict="fail", text=text, remedy=remedy, figures=figures)


def not_checked(why: str) -> Finding:
    """It was not to be checked, or could not be."""
    return Finding(verdict="skip", text=why)


def examine(check: Check) -> Finding:
    """What the check finds; whatever it raises is a finding too, so that the next check is made."""
    try:
        return check()
    except SeldrtError as error:  # says by itself what to do
        return bad(str(error), "")
    except Exception as error:
        return bad(f"the check itself failed: {type(error).__name__}: {error}", "please report this")
