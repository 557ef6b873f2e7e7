#!/usr/bin/env bash
# usage: deploy/check.sh [WRITE]
# Checks what is deployed: the chart (strict lint, a matrix of values rendered and validated against Kubernetes' own schemas,
# restricted Pod Security), the plain manifests (equal to the rendered chart), Prometheus rules and their tests, JSON and YAML
# of dashboards. With WRITE it writes deploy/kubernetes/bifold.yaml anew. What is missing on this machine is skipped by name.
#
#   HELM, PROMTOOL   the programs, else `helm` and `promtool` on the PATH
#   PYTHON           a Python with the packages of deploy/requirements.txt (default python3)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

helm=${HELM:-helm} promtool=${PROMTOOL:-promtool} python=${PYTHON:-python3}
kubernetes=1.33.0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
skipped=0
skip() { echo "SKIPPED: $1"; skipped=$((skipped + 1)); }

render() { # NAME [ARGS…]
    local name=$1
    shift
    "$helm" template bifold helm/bifold --namespace bifold --kube-version "$kubernetes" "$@" >"$work/$name.yaml"
}

if command -v "$helm" >/dev/null; then
    "$helm" lint --strict helm/bifold >"$work/lint" || { cat "$work/lint"; exit 1; }
    # Nobody opens it without saying so.
    if render closed 2>"$work/closed" || ! grep -q "serve.allowAnonymous is false" "$work/closed"; then
        echo "the chart does not refuse to open the serving layer to all"; exit 1
    fi
    open=(--set serve.allowAnonymous=true)
    render default "${open[@]}"
    for values in helm/bifold/ci/*-values.yaml; do
        "$helm" lint --strict helm/bifold --values "$values" >"$work/lint" || { cat "$work/lint"; exit 1; }
        render "$(basename "$values" -values.yaml)" --values "$values"
    done
    for wrong in speed.replicas=2 store.url=ftp://x kafka.brokers= config.speed\\.epoch_intervall=1s batch.memory=1 nonsense=1; do
        if render wrong "${open[@]}" --set "$wrong" 2>"$work/wrong"; then echo "--set $wrong is not refused"; exit 1; fi
    done
    # For those without Helm: the chart with its defaults, without the test pod.
    render plain --no-hooks "${open[@]}"
    if [ "${1:-}" = WRITE ]; then
        cp "$work/plain.yaml" kubernetes/bifold.yaml
    fi
    diff -u kubernetes/bifold.yaml "$work/plain.yaml" || { echo "deploy/kubernetes is not the rendered chart: deploy/check.sh WRITE"; exit 1; }
    cmp prometheus/alerts.yaml helm/bifold/files/alerts.yaml || { echo "the chart's alerts are not deploy/prometheus/alerts.yaml"; exit 1; }
    # The guide's own command (helm install … of docs/guide/production.md), with a pipeline beside it.
    echo "-- the reader's" >"$work/pipeline.sql"
    guide=$(sed -n '/^    helm install /,/[^\\]$/p' ../docs/guide/production.md)
    [ -n "$guide" ] || { echo "docs/guide/production.md shows no helm install"; exit 1; }
    guide=${guide/helm install bifold deploy\/helm\/bifold/"$helm" template bifold "$PWD/helm/bifold" --kube-version "$kubernetes"}
    (cd "$work" && eval "$guide") >"$work/guide.yaml"
    grep -q "the reader's" "$work/guide.yaml" || { echo "the guide's helm install does not take the pipeline"; exit 1; }
    rm "$work/wrong.yaml" "$work/closed.yaml" "$work/plain.yaml" "$work/pipeline.sql"
    if "$python" -c 'import kubernetes_validate, yaml' 2>/dev/null; then
        "$python" manifests.py "${kubernetes%.*}" "$work"/*.yaml
    else
        skip "validating manifests: $python has no kubernetes-validate (deploy/requirements.txt)"
    fi
else
    skip "the chart: there is no helm"
fi

if command -v "$promtool" >/dev/null; then
    (cd prometheus && "$promtool" check config prometheus.yml && "$promtool" test rules alerts_test.yaml) >"$work/prom" || { cat "$work/prom"; exit 1; }
    echo "prometheus: rules and their tests pass"
else
    skip "Prometheus rules: there is no promtool"
fi

"$python" -m json.tool grafana/bifold.json >/dev/null && echo "grafana: the dashboard is JSON"
echo "deploy: checked, $skipped skipped"
