"""Rules about facilities, several of which make one policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ws4redis_tx.config.importing import Importable, import_dotted
from ws4redis_tx.core.admission import default_policy
from ws4redis_tx.core.errors import ConfigError


class Rule:
    """One rule: a policy for some of the facilities."""

    def check(self, name: str) -> None:
        """Raise ``ConfigError`` under ``name``, a setting, if it can be seen not to work."""
        raise NotImplementedError

    def decide(self, request: Any, rights: Sequence[str]) -> Sequence[str] | None:
        """The rights that are granted, or ``None`` if the rule is about another facility."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class FirstMatch:
    """A policy: the first rule that is about the facility decides, else the default policy."""

    rules: Sequence[Rule]

    def __call__(self, request: Any, rights: Sequence[str]) -> Sequence[str]:
        for rule in self.rules:
            granted = rule.decide(request, rights)
            if granted is not None:
                return granted
        return default_policy(rights)


class Policy(Importable):
    """A callable, a rule, or a list of rules; or the dotted name of one of these."""

    __slots__ = ()

    def check(self, name: str, value: object) -> Callable[..., Any]:
        found = import_dotted(name, value)
        if isinstance(found, Rule):
            found = [found]
        if not isinstance(found, list | tuple):
            return super().check(name, value)
        if not found:
            remedy = "Write rules into it, or use None for the default policy."
            raise ConfigError(name, f"is {value!r}, which holds no rule", remedy)
        for each in found:
            if not isinstance(each, Rule):
                remedy = "A list holds ws4redis_tx.policies.allow('orders/<int:pk>', test), …"
                raise ConfigError(name, f"holds {each!r}, which is not a rule", remedy)
            each.check(name)
        return FirstMatch(tuple(found))


POLICY = Policy(
    "Name a plain function (request, channels), which runs in a thread and may block.", takes=2
)
