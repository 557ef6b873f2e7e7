"""usage: manifests.py VERSION FILE…: validates rendered manifests strictly against Kubernetes' own schemas, and pods
against the restricted Pod Security Standard. Kinds that Kubernetes itself does not have are named."""

import sys

import kubernetes_validate
import yaml


def pod_of(document):
    spec = document.get("spec", {})
    match document["kind"]:
        case "Pod":
            return spec
        case "CronJob":
            return spec["jobTemplate"]["spec"]["template"]["spec"]
        case "Deployment" | "StatefulSet" | "DaemonSet" | "Job":
            return spec["template"]["spec"]
    return None


def restricted(pod):
    """What the restricted Pod Security Standard asks and this pod does not do."""
    missing = []
    security = pod.get("securityContext", {})
    if not security.get("runAsNonRoot"):
        missing.append("runAsNonRoot")
    if security.get("runAsUser") == 0:
        missing.append("runAsUser is 0")
    if security.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        missing.append("seccompProfile")
    for flag in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(flag):
            missing.append(flag)
    for volume in pod.get("volumes", []):
        if not set(volume) - {"name"} <= {"configMap", "emptyDir", "secret", "projected", "persistentVolumeClaim", "downwardAPI", "csi", "ephemeral"}:
            missing.append(f"volume {volume['name']}")
    for container in pod.get("initContainers", []) + pod["containers"]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False:
            missing.append(f"{container['name']}: allowPrivilegeEscalation")
        if own.get("capabilities", {}).get("drop") != ["ALL"]:
            missing.append(f"{container['name']}: capabilities")
        if not own.get("readOnlyRootFilesystem"):
            missing.append(f"{container['name']}: readOnlyRootFilesystem")
        if "resources" not in container or "memory" not in container["resources"].get("limits", {}):
            missing.append(f"{container['name']}: a limit of memory")
    return missing


def main(version, files):
    wrong = validated = 0
    foreign = set()
    for file in files:
        for document in filter(None, yaml.safe_load_all(open(file))):
            where = f"{file.rsplit('/', 1)[-1]}: {document['kind']} {document['metadata']['name']}"
            if document["apiVersion"].startswith("monitoring.coreos.com/"):
                foreign.add(document["kind"])
                continue
            try:
                kubernetes_validate.validate(document, version, strict=True)
                validated += 1
            except kubernetes_validate.ValidationError as error:
                print(f"{where}: {error.message} at {'.'.join(map(str, error.path))}")
                wrong += 1
            pod = pod_of(document)
            for missing in restricted(pod) if pod else []:
                print(f"{where}: not restricted: {missing}")
                wrong += 1
    print(f"manifests: {validated} valid in Kubernetes {version}, {wrong} wrong; not checked: {', '.join(sorted(foreign)) or 'none'}")
    return 1 if wrong or not validated else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
