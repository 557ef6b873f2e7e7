#!/usr/bin/env bash
# usage: deploy/dev/kubernetes/light.sh
# Installs the chart on a real Kubernetes API server with its controllers and scheduler, whose nodes are simulated by kwok: pods
# become ready without running. Checks what only an API server checks: strict server-side validation of every value set of
# deploy/helm/bifold/ci, admission under the restricted Pod Security Standard, install, upgrade with a changed pipeline (every
# role rolls), a batch job from the CronJob, a drained node under the disruption budget, uninstall.
#
#   KUBE_BIN   a folder with etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubectl, helm, kwok (1.33), and
#              kwok-stages.yaml: kwok's own fast stages of nodes and pods, in one file
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

bin=${KUBE_BIN:?a folder with etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubectl, helm, kwok}
for program in etcd kube-apiserver kube-controller-manager kube-scheduler kubectl helm kwok; do
    [ -x "$bin/$program" ] || { echo "SKIPPED: KUBE_BIN has no $program"; exit 0; }
done
export PATH=$bin:$PATH
work=$(mktemp -d)
pids=()
finish() {
    local code=$?
    [ "$code" = 0 ] || tail -n 3 "$work"/*.log >&2
    kill "${pids[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT

# shellcheck source=control-plane.sh
. deploy/dev/kubernetes/control-plane.sh
control_plane 127.0.0.1
start kwok kwok --kubeconfig="$KUBECONFIG" --config="$bin/kwok-stages.yaml" --manage-all-nodes=false \
    --manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake --node-ip=127.0.0.1 --cidr=127.1.0.0/16 --server-address=
for n in 1 2 3; do
    kubectl apply -f - >/dev/null <<NODE
{apiVersion: v1, kind: Node, metadata: {name: node-$n, annotations: {kwok.x-k8s.io/node: fake}, labels: {kubernetes.io/hostname: node-$n, kubernetes.io/os: linux, type: kwok}},
 status: {allocatable: {cpu: "8", memory: 16Gi, pods: "110"}, capacity: {cpu: "8", memory: 16Gi, pods: "110"}}}
NODE
done
kubectl wait --for=condition=Ready node -l type=kwok --timeout=60s >/dev/null
echo "kubernetes: $(kubectl get --raw /version | sed -n 's/.*"gitVersion": "\(.*\)".*/\1/p') is up after ${SECONDS} s"

kubectl create namespace bifold >/dev/null
kubectl label namespace bifold pod-security.kubernetes.io/enforce=restricted >/dev/null
k() { kubectl -n bifold "$@"; }
count=0 sets=0
for values in /dev/null deploy/helm/bifold/ci/*-values.yaml; do
    # Kinds of the Prometheus operator are not there.
    helm template bifold deploy/helm/bifold -n bifold --kube-version 1.33.0 --values "$values" --set serviceMonitor.enabled=false,prometheusRule.enabled=false >"$work/rendered.yaml"
    k apply --dry-run=server --validate=strict -f "$work/rendered.yaml" >"$work/applied"
    if grep -i 'warning' "$work/applied"; then exit 1; fi
    count=$((count + $(wc -l <"$work/applied"))) sets=$((sets + 1))
done
echo "kubernetes: $count objects of $sets value sets are taken by the server"

helm install bifold deploy/helm/bifold -n bifold --wait --timeout 120s >"$work/install"
grep -q 'STATUS: deployed' "$work/install"
roles() { k get pods -l app.kubernetes.io/component -o jsonpath='{range .items[?(@.status.phase=="Running")]}{.metadata.labels.app\.kubernetes\.io/component}{"\n"}{end}' | sort | uniq -c | tr -s ' \n' ' '; }
echo "kubernetes: installed; running:$(roles)"
k create job --from=cronjob/bifold-batch now >/dev/null
k wait --for=condition=Complete job/now --timeout=60s >/dev/null
before=$(k get deploy/bifold-serve deploy/bifold-collect statefulset/bifold-speed -o jsonpath='{.items[*].metadata.generation}')
helm upgrade bifold deploy/helm/bifold -n bifold --wait --timeout 120s --set-string 'pipeline.more\.sql=-- another file' >"$work/upgrade"
after=$(k get deploy/bifold-serve deploy/bifold-collect statefulset/bifold-speed -o jsonpath='{.items[*].metadata.generation}')
if [ "$before, $after" != "1 1 1, 2 2 2" ]; then
    echo "a changed pipeline does not roll every role: generations $before, then $after" >&2
    exit 1
fi
k rollout status statefulset/bifold-speed --timeout=60s >/dev/null
node=$(k get pods -l app.kubernetes.io/component=serve -o jsonpath='{.items[0].spec.nodeName}')
kubectl drain "$node" --ignore-daemonsets --delete-emptydir-data --timeout=60s >"$work/drain" 2>&1
k rollout status deploy/bifold-serve --timeout=60s >/dev/null
helm uninstall bifold -n bifold --wait --timeout 60s >/dev/null
echo "kubernetes: batch job completed, upgrade rolled every role, a node was drained, uninstalled; ${SECONDS} s in all"
