"""The KubeRay manifests, field by field, and `ray up` against the schema that ships with Ray.

Source of the field names: KubeRay `ray.io/v1` (RayClusterSpec, RayJobSpec, RayServiceSpec).
"""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
CLUSTER = ROOT / "cluster"
CLUSTER_FIELDS = {
    "rayVersion", "headGroupSpec", "workerGroupSpecs", "enableInTreeAutoscaling",
    "autoscalerOptions", "authOptions",
}  # fmt: skip
HEAD_FIELDS = {"serviceType", "rayStartParams", "template"}
WORKER_FIELDS = {
    "groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams",
    "template",
}  # fmt: skip
JOB_FIELDS = {
    "entrypoint", "submissionMode", "runtimeEnvYAML", "backoffLimit", "shutdownAfterJobFinishes",
    "ttlSecondsAfterFinished", "rayClusterSpec",
}  # fmt: skip
CONTAINER_FIELDS = {
    "name", "image", "ports", "resources", "securityContext", "volumeMounts", "livenessProbe",
    "readinessProbe",
}  # fmt: skip
POD_FIELDS = {"securityContext", "nodeSelector", "tolerations", "containers", "volumes"}
MANIFESTS = {"raycluster": "RayCluster", "rayjob": "RayJob", "rayservice": "RayService"}


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / f"{name}.yaml").read_text(encoding="utf-8"))


def cluster_spec(name: str) -> dict[str, Any]:
    spec = load(name)["spec"]
    return spec[{"rayjob": "rayClusterSpec", "rayservice": "rayClusterConfig"}[name]] if (
        name != "raycluster"
    ) else spec  # fmt: skip


def pinned(package: str) -> str:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{package}==(\S+)$", text, re.MULTILINE)
    assert found, f"{package} is not pinned"
    return found[1]


def gibibytes(quantity: str) -> int:
    assert quantity.endswith("Gi"), quantity
    return int(quantity.removesuffix("Gi"))


@pytest.mark.parametrize(("name", "kind"), MANIFESTS.items())
def test_kind_and_name(name: str, kind: str) -> None:
    manifest = load(name)
    assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", kind)
    # At most 50 characters of a DNS label: KubeRay appends to it.
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?", manifest["metadata"]["name"])


@pytest.mark.parametrize("name", MANIFESTS)
def test_cluster_fields(name: str) -> None:
    spec = cluster_spec(name)
    assert set(spec) <= CLUSTER_FIELDS
    assert spec["rayVersion"] == pinned("ray")
    assert spec["authOptions"] == {"mode": "token"}  # the job API runs any code
    assert spec["autoscalerOptions"]["upscalingMode"] in ("Default", "Aggressive", "Conservative")
    assert isinstance(spec["autoscalerOptions"]["idleTimeoutSeconds"], int)
    assert set(spec["headGroupSpec"]) <= HEAD_FIELDS
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"  # no work beside the GCS
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


@pytest.mark.parametrize("name", MANIFESTS)
def test_worker_groups_are_nodes_of_eight_gpus(name: str) -> None:
    for group in cluster_spec(name)["workerGroupSpecs"]:
        assert set(group) <= WORKER_FIELDS
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        resources = group["template"]["spec"]["containers"][0]["resources"]
        assert resources["limits"]["nvidia.com/gpu"] == 8
        # Kubernetes refuses GPU requests that differ from limits; equal for all: Guaranteed QoS.
        assert resources["limits"] == resources["requests"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_pods(name: str) -> None:
    spec = cluster_spec(name)
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        assert set(pod) <= POD_FIELDS
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 1000
        (container,) = pod["containers"]
        assert set(container) <= CONTAINER_FIELDS
        assert re.fullmatch(r"medray/medray:\d+\.\d+\.\d+", container["image"])
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        for probe in ("livenessProbe", "readinessProbe"):
            assert "local_raylet_healthz" in container[probe]["exec"]["command"][-1]
            assert container[probe]["timeoutSeconds"] <= container[probe]["periodSeconds"] * 2
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts == {"storage": "/mnt/medray", "shm": "/dev/shm"}
        assert set(mounts) == set(volumes)
        claim = volumes["storage"]["persistentVolumeClaim"]["claimName"]
        assert claim == load("storage")["metadata"]["name"]
        shm = volumes["shm"]["emptyDir"]
        assert shm["medium"] == "Memory"
        # Memory of an emptyDir counts against the container.
        memory = gibibytes(container["resources"]["limits"]["memory"])
        assert gibibytes(shm["sizeLimit"]) <= memory / 2


def test_head_answers_for_the_control_service() -> None:
    for name in MANIFESTS:
        head = cluster_spec(name)["headGroupSpec"]["template"]["spec"]["containers"][0]
        assert "gcs_healthz" in head["livenessProbe"]["exec"]["command"][-1]
        ports = {port["name"]: port["containerPort"] for port in head["ports"]}
        assert ports | {"gcs": 6379, "dashboard": 8265, "client": 10001} == ports


def test_storage_is_shared_between_nodes() -> None:
    assert load("storage")["spec"]["accessModes"] == ["ReadWriteMany"]


def test_job_fields_and_entrypoint() -> None:
    spec = load("rayjob")["spec"]
    assert set(spec) <= JOB_FIELDS
    assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "InteractiveMode")
    python, script, flag, profile = shlex.split(spec["entrypoint"])
    assert (python, flag) == ("python", "--profile")
    assert (ROOT / script).is_file()
    assert (ROOT / "jobs" / "profiles" / f"{profile}.yaml").is_file()
    assert spec["shutdownAfterJobFinishes"] is True  # else ttlSecondsAfterFinished is refused


def test_job_environment_is_one_that_ray_takes() -> None:
    values = yaml.safe_load(load("rayjob")["spec"]["runtimeEnvYAML"])
    assert set(values) <= {"working_dir", "excludes", "env_vars", "pip"}
    dockerfile = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    assert f"WORKDIR {values['working_dir']}" in dockerfile


def test_service_holds_the_shipped_serve_config() -> None:
    spec = load("rayservice")["spec"]
    assert set(spec) == {"serveConfigV2", "rayClusterConfig"}
    shipped = (ROOT / "serve_configs" / "a100x8.yaml").read_text(encoding="utf-8")
    assert spec["serveConfigV2"] == shipped


def test_service_config_parses_and_fits_the_cluster() -> None:
    from ray.serve.schema import ServeDeploySchema

    manifest = load("rayservice")["spec"]
    config = ServeDeploySchema.model_validate(yaml.safe_load(manifest["serveConfigV2"]))
    assert [app.route_prefix for app in config.applications] == ["/"]
    (worker,) = manifest["rayClusterConfig"]["workerGroupSpecs"]
    (container,) = worker["template"]["spec"]["containers"]
    assert config.http_options.port in {port["containerPort"] for port in container["ports"]}
    assert f":{config.http_options.port}/-/healthz" in container["readinessProbe"]["exec"][
        "command"
    ][-1]  # fmt: skip
    assert config.http_options.host == "0.0.0.0"  # other pods must reach it
    storage = config.applications[0].args["storage_root"]
    assert storage.startswith(container["volumeMounts"][0]["mountPath"])


def test_storage_root_of_the_profile_is_on_the_claim() -> None:
    profile = yaml.safe_load((ROOT / "jobs/profiles/a100x8.yaml").read_text(encoding="utf-8"))
    service = yaml.safe_load(load("rayservice")["spec"]["serveConfigV2"])
    assert profile["storage"]["root"].startswith("/mnt/medray")
    assert profile["storage"]["root"] == service["applications"][0]["args"]["storage_root"]


def test_ray_up_matches_the_schema_that_ships_with_ray() -> None:
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    raw = load("ray_up")
    schema_file = Path(ray.autoscaler.__file__).parent / "ray-schema.json"
    schema = json.loads(schema_file.read_text(encoding="utf-8"))
    jsonschema.validate(raw, schema)
    with pytest.raises(jsonschema.ValidationError, match="nix"):
        jsonschema.validate(raw | {"nix": 1}, schema)
    prepared = prepare_config(raw)
    validate_config(prepared)
    (node,) = prepared["available_node_types"].values()
    assert node["max_workers"] == len(raw["provider"]["worker_ips"])


def test_ray_up_uses_the_image_of_the_manifests() -> None:
    docker = load("ray_up")["docker"]
    head = cluster_spec("raycluster")["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert docker["image"] == head["image"]
    assert "-v /mnt/medray:/mnt/medray" in docker["run_options"]
    assert not docker["pull_before_run"]


def test_ray_up_asks_for_the_token() -> None:
    config = load("ray_up")
    assert "-e RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {"/home/medray/.ray/auth_token": "~/.ray/auth_token"}
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


def test_dockerfile_is_pinned_unprivileged_and_watched() -> None:
    text = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG BASE=\S+:\d\S*$", text, re.MULTILINE)
    assert ":latest" not in text
    assert "-c constraints.txt" in text
    users = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
    assert users[-1] == "1000:1000"
    assert "HEALTHCHECK" in text
    for source in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists(), name
            ignore = (CLUSTER / "Dockerfile.dockerignore").read_text(encoding="utf-8")
            assert f"!{name}\n" in ignore
