"""Configs and the messages of what can go wrong before Ray starts."""

import socket
from pathlib import Path

import pytest
import yaml

from medray.common.errors import ConfigError, ServiceError, StorageError
from medray.common.manifest import Artefact, list_files, read_manifest, write_manifest
from medray.common.storage import Storage, StorageConfig
from medray.serving import client, up
from medray.serving.app import Replicas, ServingConfig
from medray.serving.artefacts import Location, directory, newest, warn_of_erasures

CONFIGS = sorted((Path(__file__).parents[2] / "serve_configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_valid_for_serve_deploy_and_for_us(path):
    schema, config = up.read_config(path)
    assert schema.applications[0].import_path == up.APP_PATH
    assert config.storage_root
    _, changed = up.read_config(path, ["batching.max_requests=7", "gateway.answer.top_k=2"])
    assert (changed.batching.max_requests, changed.gateway.answer.top_k) == (7, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"args": {"storage_roots": "x"}}, "storage_roots: unknown key"),
        ({"args": {}}, "set storage_root, or all of"),
        ({"args": {"storage_root": "x", "index_dir": "y"}}, "belong together"),
        ({"args": {"storage_root": "x", "batching": {"max_requests": "many"}}}, "max_requests"),
        ({"import_path": "other:app"}, "import_path"),
        ({"deployments": [{"name": "policy", "num_replicas": 2}]}, "under args"),
    ],
)
def test_wrong_config_is_explained(tmp_path, change, message):
    values = yaml.safe_load(CONFIGS[-1].read_text(encoding="utf-8"))
    values["applications"][0] |= change
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        up.read_config(path)


def test_replicas_scale_only_between_two_bounds():
    assert Replicas(min=2, max=2).options(8)["num_replicas"] == 2
    scaled = Replicas(min=1, max=3, num_gpus=1).options(8)
    assert "num_replicas" not in scaled
    assert scaled["autoscaling_config"]["max_replicas"] == 3
    assert scaled["ray_actor_options"] == {"num_cpus": 0.1, "num_gpus": 1}
    with pytest.raises(ValueError, match="min 2 and max 1"):
        Replicas(min=2, max=1)


def test_other_machines_are_let_in_with_keys_or_tokens_alone():
    oidc = {"issuer": "https://sso.hospital.example", "audience": "medray",
            "roles": [{"value": "physicians", "role": "clinician"}]}  # fmt: skip
    for gateway in ({"keys_file": "keys.json"}, {"oidc": oidc}):
        config = ServingConfig.parse({"storage_root": "x", "gateway": gateway}, "test")
        up.check_access("0.0.0.0", config)
    open_to_all = ServingConfig(storage_root="x")
    up.check_access("127.0.0.1", open_to_all)
    with pytest.raises(ConfigError, match=r"gateway\.keys_file .* or gateway\.oidc"):
        up.check_access("0.0.0.0", open_to_all)


def test_missing_pipeline_says_what_to_run(tmp_path):
    with pytest.raises(ConfigError, match="run the pipeline first"):
        up.start(CONFIGS[-1], [f"storage_root={tmp_path}"], port=free_port())
    (tmp_path / "pipeline.json").write_text('{"steps": {"corpus": {"key": "c"}}}')
    with pytest.raises(ConfigError, match="no finished step ppo or sft"):
        newest(str(tmp_path), ("ppo", "sft"))
    (tmp_path / "pipeline.json").write_text('{"steps": []}')
    with pytest.raises(ConfigError, match="damaged"):
        newest(str(tmp_path), ("ppo",))


def test_newest_prefers_the_later_stage(tmp_path):
    steps = '{"steps": {"sft": {"key": "s"}, "ppo": {"key": "p"}}}'
    (tmp_path / "pipeline.json").write_text(steps)
    location = newest(str(tmp_path), ("ppo", "sft"), "model")
    assert (location.step, location.key, location.version) == ("ppo", "p", "p")
    with pytest.raises(StorageError, match="run the ppo job first"):
        location.fetch()
    model = tmp_path / "ppo" / "p" / "model"
    model.mkdir(parents=True)
    (model.parent / "manifest.json").write_text("{}")
    assert location.fetch() == model


def test_serving_what_an_erasure_left_outdated_is_said(tmp_path, caplog):
    storage = Storage(StorageConfig(root=str(tmp_path)))

    def make(step: str, **parents: Path) -> Path:
        artefact = Artefact(storage, step, StorageConfig(root=""), key="k", parents=parents)
        (artefact.dir / "file").write_text(step)
        return artefact.publish()

    corpus = make("corpus")
    make("ppo", instructions=make("instructions", corpus=corpus))
    make("index", encoder=make("encoder"))
    served = [Location(root=str(tmp_path), step=s, key="k") for s in ("ppo", "encoder", "index")]
    served.append(directory(str(tmp_path)))
    warn_of_erasures(served)
    assert not caplog.records
    (corpus / "file").unlink()
    manifest = read_manifest(corpus)
    write_manifest(corpus, manifest.model_copy(update={"files": list_files(corpus)}))
    warn_of_erasures(served)
    (record,) = caplog.records
    assert record.getMessage().startswith("ppo/k is served although rows that it was made of")


def test_given_directories_take_the_place_of_the_pipeline(tmp_path):
    config = ServingConfig(model_dir="m", encoder_dir="e", index_dir="i")
    assert config.locate(config.model_dir, "ppo") == directory("m")
    with pytest.raises(StorageError, match="no directory at"):
        directory(str(tmp_path / "none")).fetch()


def test_taken_port_names_another():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=f"{port}.*--port {port + 1}"):
            up.check_port("127.0.0.1", port)


def test_ask_without_a_server_says_how_to_start_one():
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ServiceError, match="medray serve"):
        list(client.ask("肺炎？", url))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
