"""Settings of `build_instructions`."""

from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field, model_validator

from medray.common.config import Config
from medray.instructions.alignment import AlignmentConfig
from medray.instructions.examples import Task
from medray.instructions.feedback import PromptsConfig, ScoresConfig
from medray.instructions.knowledge_graph import KnowledgeGraphConfig
from medray.instructions.partial import PartialConfig
from medray.instructions.quality import QualityTasksConfig
from medray.instructions.raw import TaskSource
from medray.instructions.screen.config import ScreenConfig


class Sampling(Config):
    """How much of one fine-tuning task is kept."""

    max_rows: int | None = Field(default=None, ge=0)
    """Training rows at most, chosen by hash; 0 leaves the task out, None keeps all."""
    max_dev_rows: int | None = Field(default=None, ge=0)
    """Dev rows at most."""
    weight: float = Field(default=1.0, ge=0)
    """Copies of each training row: 2 repeats it, 0.5 keeps half of the rows."""
    group_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Weights of groups of rows in place of `weight`. A group is the department of a record, the
    subject of an exam, the relation of a triple, indicator/sub-task of quality control; a name
    may be a shell pattern (`pci-*`), and the first that fits counts."""

    def weight_of(self, group: str | None) -> float:
        """The weight of the rows of a group."""
        for pattern, weight in self.group_weights.items():
            if fnmatchcase(group or "", pattern):
                return weight
        return self.weight


class InstructionsConfig(Config):
    """What is made of a hospital's task files and de-identified corpus."""

    sources: tuple[TaskSource, ...] = ()
    """The task files. Records and literature come from the corpus, not from here."""
    seed: int = 0
    """Decides the order of rows and which are kept under a limit."""
    dev_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share held out where a row does not name its split. Source: not given; [ClinicalGPT 2.1]
    holds out 1–4 % of far larger sets."""
    sampling: dict[Task, Sampling] = Field(default_factory=dict)
    """Per task of sft/; a task that is not named is kept whole."""
    max_prompt_chars: int = Field(default=1500, gt=0)
    """Longest prompt. Records are cut to it, other rows rejected; grounded prompts keep all their
    passages. Source: [ClinicalGPT 3.1] trains on 1 024 tokens, about 1 500 characters."""
    max_answer_chars: int = Field(default=600, gt=0)
    """Longest answer; a longer one is cut after its last sentence that fits."""
    max_rejected_fraction: float = Field(default=0.05, ge=0, le=1)
    """The job stops when more of a source's lines than this are malformed."""
    partial_records: PartialConfig = PartialConfig()
    """Further training rows of the diagnosis."""
    alignment: AlignmentConfig = AlignmentConfig()
    """Rows asked once more, in other ways."""
    screen: ScreenConfig = ScreenConfig()
    """What is looked for in sft/ before it is trained on."""
    knowledge_graph: KnowledgeGraphConfig = KnowledgeGraphConfig()
    scores: ScoresConfig = ScoresConfig()
    prompts: PromptsConfig = PromptsConfig()
    quality: QualityTasksConfig = QualityTasksConfig()

    @model_validator(mode="after")
    def _check_names(self) -> "InstructionsConfig":
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError("two sources have the same name; it names their quarantine file")
        return self

    def sampling_of(self, task: Task) -> Sampling:
        """The sampling of a task."""
        return self.sampling.get(task, Sampling())
