"""Each finding of the doctor on a real directory, port or address made for the test."""

import json
import socket
from pathlib import Path

import pytest

from medray import cli, doctor


def model_directory(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        (path / name).write_text("{}", encoding="utf-8")
    return path


def test_this_machine_passes_what_tests_need() -> None:
    assert doctor.check_python().status == "ok"
    assert doctor.check_packages().status == "ok"
    assert 0 < doctor.free_memory_bytes() < 2**50


def test_a_complete_model_directory_is_ok(tmp_path: Path) -> None:
    names = ("config.json", "tokenizer.json", "model.safetensors")
    assert doctor.check_model(model_directory(tmp_path / "bge", *names)).status == "ok"


def test_a_model_directory_without_tokenizer_is_named(tmp_path: Path) -> None:
    check = doctor.check_model(model_directory(tmp_path / "qwen", "config.json", "x.safetensors"))
    assert check.status == "fail"
    assert str(tmp_path / "qwen") in check.found
    assert "a tokenizer" in check.found
    assert "weights" not in check.found


def test_a_lost_shard_is_named(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "m", "config.json", "vocab.txt", "a.safetensors")
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert doctor.missing_parts(directory) == ["weights b.safetensors"]
    (directory / "model.safetensors.index.json").write_text("{", encoding="utf-8")
    assert doctor.missing_parts(directory) == ["a readable model.safetensors.index.json"]


def test_baichuan_as_published_is_to_be_converted(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "Baichuan2-7B-Base", "modeling_baichuan.py")
    code = {"AutoConfig": "configuration_baichuan.BaichuanConfig"}
    config = {"model_type": "baichuan", "architectures": ["BaichuanForCausalLM"], "auto_map": code}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    check = doctor.check_model(directory)
    assert check.status == "fail"
    assert "is Baichuan as published" in check.found and "lacks a tokenizer" in check.found
    assert f"`medray convert {directory} {directory}-llama --bin`" in check.mend


def test_a_model_with_code_of_its_own(tmp_path: Path) -> None:
    names = ("config.json", "tokenizer.json", "model.safetensors")
    directory = model_directory(tmp_path / "m", *names)
    config = {"model_type": "own", "auto_map": {"AutoConfig": "x.Y"}}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    check = doctor.check_model(directory)
    assert check.status == "fail" and "set trust_remote_code to true" in check.mend
    assert doctor.check_model(directory, trusted=True).status == "warn"
    (directory / "config.json").write_text("{", encoding="utf-8")
    assert "is no JSON" in doctor.check_model(directory).mend


def test_an_empty_and_a_missing_model_directory(tmp_path: Path) -> None:
    assert len(doctor.missing_parts(tmp_path)) == 3
    assert doctor.check_model(tmp_path / "nix").status == "fail"


def test_model_paths_of_a_profile() -> None:
    values = {
        "decoder": {"path": "/models/qwen", "num_layers": 2},
        "encoder": {"base": "/models/bge"},
        "index": {"uri": "http://milvus:19530"},
    }
    assert list(doctor.model_paths(values)) == [Path("/models/qwen"), Path("/models/bge")]
    assert list(doctor.model_paths({"decoder": {"path": ""}})) == []


def test_a_taken_port_is_reported() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        check = doctor.check_port(port, "medray serve; use --port")
    assert (check.name, check.status) == (f"port {port}", "warn")
    assert "--port" in check.mend
    assert doctor.check_port(port, "").status == "ok"


@pytest.mark.parametrize("scheme", ["http://", "ray://", ""])
def test_ray_address_that_answers_and_one_that_does_not(scheme: str) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
        assert doctor.check_ray(address).status == "ok"
    check = doctor.check_ray(address)
    assert check.status == "fail"
    assert address in check.found
    assert "ray start --head" in check.mend


def test_no_ray_address_means_local_ray() -> None:
    assert doctor.check_ray("").status == "ok"


def test_storage_below_a_file_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    check = doctor.check_storage(str(tmp_path / "file" / "runs"))
    assert check.status == "fail"
    assert "set storage.root" in check.mend
    assert doctor.check_storage(str(tmp_path / "runs")).status == "ok"
    assert list((tmp_path / "runs").iterdir()) == []


def test_read_only_storage() -> None:
    check = doctor.check_storage("/proc/medray")  # where not even root may write
    assert check.status == "fail"
    assert "set storage.root" in check.mend


def test_command_prints_a_table_and_fails_on_a_bad_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"storage.root={tmp_path / 'runs'}"
    cli.main(["doctor", root])
    table = capsys.readouterr().out
    for name in ("python", "cores", "memory", "storage disk", "gpu", "port 8000", "ray"):
        assert f"  {name} " in table
    assert cli.main(["doctor", root, "--model", str(tmp_path / "nix"), "--json"]) == 2
    checks = json.loads(capsys.readouterr().out)
    assert checks[-1]["status"] == "fail"


def test_unknown_profile_fails_with_the_names(tmp_path: Path) -> None:
    checks = {check.name: check for check in doctor.examine("nix")}
    assert checks["profile"].status == "fail"
    assert "laptop" in checks["profile"].mend
