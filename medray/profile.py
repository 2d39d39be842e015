"""A profile: the settings of every step on one page. The jobs read it; nothing else does."""

from pydantic import Field

from medray.common.config import Config
from medray.common.storage import Place, StorageConfig
from medray.corpus.prepare import CorpusConfig
from medray.evaluation.run import EvaluationConfig
from medray.instructions.build import InstructionsConfig
from medray.plan import PlanConfig
from medray.quality.run import QualityConfig
from medray.retrieval.index import IndexConfig
from medray.retrieval.training.encoder_model import EncoderConfig
from medray.retrieval.training.reranker import RerankerConfig
from medray.sample.hospital import SampleConfig
from medray.training.language_model import DecoderConfig
from medray.training.ppo.config import PpoConfig
from medray.training.preference.config import PreferenceConfig
from medray.training.pretrain import PretrainConfig
from medray.training.reward.config import RewardConfig
from medray.training.samples import SamplesConfig
from medray.training.sft import SftConfig
from medray.training.workers import WorkersConfig


class RayConfig(Config):
    """The Ray cluster that jobs run on."""

    address: str = ""
    """Address of a cluster, such as ray://head:10001; empty: RAY_ADDRESS (which `ray job submit`
    sets), else a local cluster that ends with the job."""
    num_cpus: int | None = None
    """Logical CPUs of a local cluster; may exceed the cores, so that two workers, an actor and a
    data task fit on two cores. None: as many as there are."""
    log_to_driver: bool = True
    """Forward the workers' output to the terminal."""


class Profile(Config):
    """Everything a run needs. Source of the values: METHOD.md for a100x8, measured for laptop."""

    storage: StorageConfig
    data: Place = ""
    """Directory of the hospital's exports, or the URI of one in an object store, which is copied
    below storage.root or storage.cache; empty: the sample hospital. Set by --data."""
    min_free_disk_gb: float = Field(default=2.0, ge=0)
    """Free space that a job asks for before it starts."""
    trust_remote_code: bool = False
    """Run Python code that a model directory brings (auto_map in config.json). Read it first."""
    ray: RayConfig = RayConfig()
    workers: WorkersConfig
    pin: dict[str, str] = Field(default={})
    """Step → key of the artefact that stands for it, whatever its settings and parents are now: a
    corpus that grows every night gets a new index by the encoder that is there (pin.encoder=KEY),
    and what is trained stays as it is until it is trained on purpose."""
    sample: SampleConfig
    corpus: CorpusConfig
    instructions: InstructionsConfig
    decoder: DecoderConfig = DecoderConfig()
    pretrain: PretrainConfig = PretrainConfig()
    sft: SftConfig = SftConfig()
    encoder: EncoderConfig = EncoderConfig()
    reward: RewardConfig = RewardConfig()
    ppo: PpoConfig = PpoConfig()
    preference: PreferenceConfig = PreferenceConfig()
    samples: SamplesConfig = SamplesConfig()
    index: IndexConfig = IndexConfig()
    reranker: RerankerConfig = RerankerConfig()
    quality: QualityConfig = Field(default_factory=lambda: QualityConfig.model_validate({}))
    evaluation: EvaluationConfig = Field(
        default_factory=lambda: EvaluationConfig.model_validate({})
    )
    plan: PlanConfig = PlanConfig()
