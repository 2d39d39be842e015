"""Data for reinforcement: scored responses, preference pairs, prompts.

In: raw scores, preferences and scenarios, whose free text is masked here. Out: `ScoredResponse`,
`PreferencePair`, `Scenario`.
Source: scenario–response pairs with expert scores, score ranges balanced by stratified sampling
[EMR-LLM 1.4]; pairs [ClinicalGPT 2.3].
Differs: where there are no expert scores, a pair may stand in for two (chosen 1, rejected 0), so
that the published regression objective still has targets; a setting, off by default.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import model_validator

from medray.common.config import Config
from medray.common.records import PreferencePair, Scenario, ScoredResponse
from medray.common.split import Split
from medray.instructions.conversations import doctor_text
from medray.instructions.examples import Mask, Skipped, clip
from medray.instructions.raw import Consultation, Preference, ScenarioRow, Score


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
    """Derive scores from preference sources: chosen 1, rejected 0."""

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


def scores_of_pair(pair: PreferencePair) -> Iterator[ScoredResponse]:
    """Regression targets of a preference: chosen 1, rejected 0."""
    for name, response, score in (("chosen", pair.chosen, 1.0), ("rejected", pair.rejected, 0.0)):
        yield ScoredResponse(
            id=f"{pair.id}-{name}",
            scenario=pair.prompt,
            response=response,
            score=score,
            split=pair.split,
        )


def scenario_prompt(
    row: ScenarioRow | Consultation | Preference | Score,
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
