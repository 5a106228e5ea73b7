"""A builder of a step's metrics: sums within the step, and running totals over all steps.

``model.metrics_builder()`` is a model's own; ``model.log`` writes what it holds.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from art.costs import TokenPricing, reported_cost, token_cost
from art.errors import ConfigurationError

CostExtractor: TypeAlias = Callable[[Any], float | None]

# Sections whose metrics also get a running total, under `<section>/cum/`.
_SUMMED = ("costs", "time", "data")
_IDLE = ("throughput/step_trainer_idle_s", "throughput/step_actor_idle_s")

_active: ContextVar["MetricsBuilder"] = ContextVar("art_metrics_builder")


@dataclass
class _Pending:
    metrics: dict[str, float] = field(default_factory=dict)
    scenario_ids: set[str] = field(default_factory=set)


@dataclass
class _Shared:
    """The state of a builder and of those derived from it."""

    pending: dict[str, _Pending] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)
    scenario_ids: set[str] = field(default_factory=set)
    extractors: dict[str, CostExtractor] = field(default_factory=dict)
    pricing: dict[str, TokenPricing] = field(default_factory=dict)


class MetricsBuilder:
    """Sums metrics of a step until they are logged, and keeps their totals over all steps.

    Args:
        cost_context: The part of the run that responses are charged to, such as ``"train"``.

    Raises:
        art.errors.ConfigurationError: ``cost_context`` is empty.
    """

    def __init__(self, cost_context: str) -> None:
        self.cost_context = _not_empty("cost_context", cost_context)
        self._scope = self.cost_context
        self._shared = _Shared()

    def for_cost_context(
        self, cost_context: str, *, buffer_scope: str | None = None
    ) -> "MetricsBuilder":
        """Derive a builder that charges another part of the run.

        Args:
            cost_context: The part, such as ``"eval"``.
            buffer_scope: Metrics of one scope are flushed together; ``None`` is the context's own.

        Returns:
            A builder with the same totals and prices.
        """
        derived = MetricsBuilder(cost_context)
        if buffer_scope is not None:
            derived._scope = _not_empty("buffer_scope", buffer_scope)
        derived._shared = self._shared
        return derived

    @property
    def has_pending(self) -> bool:
        """``True`` where there is something to flush."""
        pending = self._pending()
        return bool(pending.metrics or pending.scenario_ids)

    def add_metric(self, key: str, value: float) -> None:
        """Add to a metric of this step.

        Args:
            key: Its name, such as ``"time/step_reward_s"``.
            value: What to add.

        Raises:
            art.errors.ConfigurationError: The name has no section, is a running total's, or is
                part of the path of another: ``costs/a`` and ``costs/a/b``.
        """
        section, _, rest = key.partition("/")
        if not section or not rest:
            raise ConfigurationError(f"the metric {key!r} needs a section: time/{key or 'name'}")
        if rest.startswith("cum/"):
            raise ConfigurationError(f"the metric {key!r} is a running total, which art counts")
        metrics = self._pending().metrics
        for other in metrics:
            if other.startswith(f"{key}/") or key.startswith(f"{other}/"):
                raise ConfigurationError(
                    f"the metrics {key!r} and {other!r} cannot be summed up: one contains the other"
                )
        metrics[key] = metrics.get(key, 0.0) + float(value)

    def add_cost(self, path: str, usd: float) -> None:
        """Add US dollars to ``costs/<path>``."""
        self.add_metric(f"costs/{_not_empty('path', path)}", usd)

    def add_response_cost(
        self,
        source: str,
        response: Any,
        *,
        provider: str,
        model_name: str,
        prompt_price_per_million: float | None = None,
        completion_price_per_million: float | None = None,
        cached_prompt_price_per_million: float | None = None,
        cache_creation_price_per_million: float | None = None,
        cache_read_price_per_million: float | None = None,
    ) -> float | None:
        """Add what a response cost to ``costs/<cost_context>/<source>``.

        Args:
            source: What it was for, such as ``"judge/ruler"``.
            response: A response of openai's or anthropic's client, or its JSON.
            provider: The provider of a registered extractor; ``"anthropic"`` for Anthropic's
                dialect of ``usage``.
            model_name: The model, by the name that its prices were registered under.
            prompt_price_per_million: A price that overrides the registered one, as all below.
            completion_price_per_million: See :class:`art.costs.TokenPricing`.
            cached_prompt_price_per_million: See there.
            cache_creation_price_per_million: See there.
            cache_read_price_per_million: See there.

        Returns:
            US dollars: what the provider's extractor reads, or else what the response reports, or
            else the price of its tokens; ``None`` where it does not say how many there were.

        Raises:
            art.errors.ConfigurationError: No price of the model is known.
        """
        provider = provider.strip().lower()
        extractor = self._shared.extractors.get(provider)
        cost = extractor(response) if extractor is not None else reported_cost(response)
        if cost is None:
            given = {
                "prompt_per_million": prompt_price_per_million,
                "completion_per_million": completion_price_per_million,
                "cached_prompt_per_million": cached_prompt_price_per_million,
                "cache_creation_per_million": cache_creation_price_per_million,
                "cache_read_per_million": cache_read_price_per_million,
            }
            cost = token_cost(response, provider, self._pricing(model_name, given))
        if cost is not None:
            self.add_cost(f"{self.cost_context}/{_not_empty('source', source.strip('/'))}", cost)
        return cost

    def _pricing(self, model_name: str, given: Mapping[str, float | None]) -> TokenPricing:
        overrides = {name: price for name, price in given.items() if price is not None}
        known = self._shared.pricing.get(model_name.strip())
        if known is not None:
            return TokenPricing(
                **{name: overrides.get(name, getattr(known, name)) for name in given}
            )
        if not {"prompt_per_million", "completion_per_million"} <= overrides.keys():
            raise ConfigurationError(
                f"no price of {model_name!r} is known: call register_model_pricing({model_name!r}, "
                "prompt_per_million=…, completion_per_million=…) first"
            )
        return TokenPricing(**overrides)

    def add_data(
        self,
        step_num_scenarios: int | None = None,
        step_actor_tokens: int | None = None,
        scenario_ids: list[str] | None = None,
    ) -> None:
        """Count data of this step.

        Args:
            step_num_scenarios: Scenarios.
            step_actor_tokens: Tokens that were sampled.
            scenario_ids: Names of scenarios, of which the distinct ones of all steps are counted.
        """
        self._add_given(
            {
                "data/step_num_scenarios": step_num_scenarios,
                "data/step_actor_tokens": step_actor_tokens,
            }
        )
        self._pending().scenario_ids.update(map(str, scenario_ids or ()))

    def add_user_timing(
        self,
        step_wall_s: float | None = None,
        step_actor_s: float | None = None,
        step_eval_s: float | None = None,
    ) -> None:
        """Add seconds of this step: all of it, its rollouts, its evaluation."""
        self._add_given(
            {
                "time/step_wall_s": step_wall_s,
                "time/step_actor_s": step_actor_s,
                "time/step_eval_s": step_eval_s,
            }
        )

    def add_idle_times(
        self, step_trainer_idle_s: float | None = None, step_actor_idle_s: float | None = None
    ) -> None:
        """Add seconds of this step in which the trainer, or the rollouts, had nothing to do."""
        self._add_given(dict(zip(_IDLE, (step_trainer_idle_s, step_actor_idle_s), strict=True)))

    def _add_given(self, metrics: Mapping[str, float | None]) -> None:
        for key, value in metrics.items():
            if value is not None:
                self.add_metric(key, value)

    @contextmanager
    def measure(self, key: str) -> Iterator[None]:
        """Add the seconds that the block takes to a metric."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.add_metric(key, time.monotonic() - start)

    async def flush(self) -> dict[str, float]:
        """Hand out this step's metrics, and forget them but for their totals.

        Returns:
            The metrics; for each path of costs the sum of what lies below it, and ``costs/all``;
            under ``<section>/cum/`` the totals of costs, times and data over all steps; rates of
            tokens over all steps.
        """
        pending = self._shared.pending.pop(self._scope, _Pending())
        step = pending.metrics | _sums_of_costs(pending.metrics)
        totals = self._shared.totals
        result = dict(step)
        for key, value in step.items():
            if key.partition("/")[0] in _SUMMED or key in _IDLE:
                total = _total_key(key)
                totals[total] = totals.get(total, 0.0) + value
                result[total] = totals[total]
        if pending.scenario_ids:
            self._shared.scenario_ids |= pending.scenario_ids
            result["data/cum/num_unique_scenarios"] = float(len(self._shared.scenario_ids))
        for who in ("trainer", "actor"):
            seconds = totals.get(f"time/cum/{who}_s", 0.0)
            counted = {f"data/step_{who}_tokens", f"time/step_{who}_s"} & step.keys()
            if counted and seconds > 0 and f"data/cum/{who}_tokens" in totals:
                rate = totals[f"data/cum/{who}_tokens"] / seconds
                result[f"throughput/avg_{who}_tok_per_s"] = rate
        return result

    def activate(self) -> Token["MetricsBuilder"]:
        """Make this the active builder of the current context; the token takes that back."""
        return _active.set(self)

    @contextmanager
    def activate_context(self) -> Iterator["MetricsBuilder"]:
        """Make this the active builder for the block and the tasks that it starts."""
        token = self.activate()
        try:
            yield self
        finally:
            _active.reset(token)

    @staticmethod
    def get_active() -> "MetricsBuilder":
        """Return the active builder.

        Raises:
            LookupError: There is none.
        """
        return _active.get()

    def register_cost_extractor(self, provider: str, extractor: CostExtractor) -> None:
        """Read the costs of a provider's responses with a function: US dollars, or ``None``."""
        self._shared.extractors[_not_empty("provider", provider).lower()] = extractor

    def register_model_pricing(
        self,
        model_name: str,
        *,
        prompt_per_million: float,
        completion_per_million: float,
        cached_prompt_per_million: float | None = None,
        cache_creation_per_million: float | None = None,
        cache_read_per_million: float | None = None,
    ) -> None:
        """Register the prices of a model; see :class:`art.costs.TokenPricing`."""
        self._shared.pricing[_not_empty("model_name", model_name)] = TokenPricing(
            prompt_per_million,
            completion_per_million,
            cached_prompt_per_million,
            cache_creation_per_million,
            cache_read_per_million,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the totals as JSON values, for :meth:`load_state_dict` of a resumed run."""
        return {
            "cum_state": dict(self._shared.totals),
            "unique_scenario_ids": sorted(self._shared.scenario_ids),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the totals of :meth:`state_dict`; what is pending is forgotten."""
        totals: Mapping[str, float] = state.get("cum_state", {})
        self._shared.totals = {str(key): float(value) for key, value in totals.items()}
        self._shared.scenario_ids = set(map(str, state.get("unique_scenario_ids", ())))
        self._shared.pending.clear()

    def _pending(self) -> _Pending:
        return self._shared.pending.setdefault(self._scope, _Pending())


def record_response_cost(source: str, response: Any, model_name: str) -> None:
    """Charge a response to the active builder, where there is one and the cost is known.

    Args:
        source: What it was for, such as ``"judge/ruler"``.
        response: The response.
        model_name: ``"provider/model"``, or a model's name.
    """
    builder = _active.get(None)
    if builder is None:
        return
    provider, slash, _ = model_name.partition("/")
    try:
        builder.add_response_cost(
            source, response, provider=provider if slash else "openai", model_name=model_name
        )
    except ConfigurationError:
        # A judge may well have no price: one of one's own, say.
        return


def _sums_of_costs(metrics: Mapping[str, float]) -> dict[str, float]:
    costs = {key: value for key, value in metrics.items() if key.startswith("costs/")}
    sums: dict[str, float] = {}
    for key, value in costs.items():
        parts = key.split("/")
        for path in ["costs/all", *("/".join(parts[:depth]) for depth in range(2, len(parts)))]:
            sums[path] = sums.get(path, 0.0) + value
    return sums


def _total_key(key: str) -> str:
    section, _, rest = key.partition("/")
    return f"{section}/cum/{rest.removeprefix('step_')}"


def _not_empty(what: str, value: str) -> str:
    if not value.strip():
        raise ConfigurationError(f"{what} must not be empty")
    return value.strip()
