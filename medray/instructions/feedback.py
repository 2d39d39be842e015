"""Data for reinforcement: scored responses, preference pairs, prompts.

In: raw scores, preferences and scenarios, whose free text is masked here. Out: `ScoredResponse`,
`PreferencePair`, `Scenario`.
Source: scenario–response pairs with expert scores, score ranges balanced by stratified sampling
[EMR-LLM 1.4]; pairs [ClinicalGPT 2.3].
Differs: where there are no expert scores, the share of its comparisons that a response won may
stand in for one (1 for a response that was only ever chosen, 0 for one only rejected), so that the
published regression objective still has targets; a setting, off by default.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import model_validator

from medray.common.config import Config
from medray.common.records import PreferencePair, Scenario, ScoredResponse
from medray.common.split import Split
from medray.common.spool import Spool, hash_key
from medray.instructions.conversations import doctor_text
from medray.instructions.examples import Mask, Skipped, clip
from medray.instructions.raw import Preference, ScenarioRow, Score


class ScoresConfig(Config):
    """How scores become targets of the reward model."""

    min_score: float = 0.0
    """Lowest score on the experts' scale; becomes 0."""
    max_score: float = 10.0
    """Highest score on the experts' scale; becomes 1."""
    num_bins: int = 5
    """Score ranges of equal width. Source: the number is not given in [EMR-LLM 1.4]."""
    max_per_bin: int | None = None
    """Training rows per range at most, chosen by hash; None keeps all. Dev is never thinned."""
    from_preferences: bool = False
    """Derive scores from preference sources: the share of its comparisons that a response won."""

    @model_validator(mode="after")
    def _check_range(self) -> "ScoresConfig":
        if self.max_score <= self.min_score or self.num_bins < 1:
            raise ValueError("max_score must exceed min_score and num_bins be at least 1")
        return self

    def bin_of(self, score: float) -> int:
        """The range, from 0, of a score already scaled to 0–1; 1.0 belongs to the last."""
        return min(int(score * self.num_bins), self.num_bins - 1)


class PromptsConfig(Config):
    """Where the prompts of reinforcement learning come from."""

    kinds: tuple[Literal["scenario", "consultation", "preference", "score"], ...] = ("scenario",)
    """Sources of these kinds give their scenario. Public sets without prompts of their own:
    [preference]."""
    max_rows: int | None = None
    """Training prompts at most, chosen by hash."""


def scored_response(
    row: Score, split: Split, mask: Mask, config: ScoresConfig, max_answer_chars: int
) -> ScoredResponse | Skipped:
    """Scales an expert's score to 0–1."""
    scaled = (row.score - config.min_score) / (config.max_score - config.min_score)
    if not 0 <= scaled <= 1:
        return Skipped("score_out_of_range")
    scenario = mask(row.scenario).strip()
    response = clip(mask(row.response), max_answer_chars)
    if not scenario or not response:
        return Skipped("empty_text")
    return ScoredResponse(
        id=row.id, scenario=scenario, response=response, score=scaled, split=split
    )


def preference_pair(
    row: Preference, split: Split, mask: Mask, max_answer_chars: int
) -> PreferencePair | Skipped:
    """A pair of texts; of a whole consultation, what the doctor said."""
    prompt = mask(row.scenario).strip()
    chosen = clip(mask(doctor_text(row.chosen)), max_answer_chars)
    rejected = clip(mask(doctor_text(row.rejected)), max_answer_chars)
    if not prompt or not chosen or not rejected:
        return Skipped("empty_text")
    if chosen == rejected:
        return Skipped("equal_responses")
    return PreferencePair(id=row.id, prompt=prompt, chosen=chosen, rejected=rejected, split=split)


def win_rates(pairs: Iterable[PreferencePair], spool: Spool) -> Iterator[ScoredResponse]:
    """One regression target per scenario and response, over all pairs that it stands in."""
    for pair in pairs:
        for response, won in ((pair.chosen, 1), (pair.rejected, 0)):
            key = hash_key(pair.prompt, response)
            spool.add(key, [pair.split, pair.id, pair.prompt, response, won])
    for _, outcomes in spool.groups():
        # The first in order: dev stands before train, so a response held out once is held out.
        split, pair_id, scenario, response, _ = outcomes[0]
        score = sum(won for *_, won in outcomes) / len(outcomes)
        yield ScoredResponse(
            id=f"{pair_id}-{hash_key(response)[:8]}",
            scenario=scenario,
            response=response,
            score=score,
            split=split,
        )


def scenario_prompt(
    row: ScenarioRow,
    split: Split,
    mask: Mask,
    max_prompt_chars: int,
) -> Scenario | Skipped:
    """The scenario as a user's message."""
    prompt = mask(row.scenario).strip()
    if not prompt:
        return Skipped("empty_text")
    if len(prompt) > max_prompt_chars:
        return Skipped("prompt_too_long")
    return Scenario(id=row.id, prompt=prompt, split=split)
