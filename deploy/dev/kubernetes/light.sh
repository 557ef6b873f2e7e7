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

port() { while :; do p=$((20000 + RANDOM % 12768)); (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null || { echo "$p"; return; }; done; }
start() { local name=$1; shift; "$@" >"$work/$name.log" 2>&1 & pids+=($!); }
wait_for() { local until=$((SECONDS + $1)) what=$2; shift 2; until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $until ] || { echo "waited in vain for $what" >&2; return 1; }; sleep 0.3; done; }

etcd_port=$(port) peer_port=$(port) api_port=$(port)
cd "$work"
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca 2>/dev/null
openssl genrsa -out sa.key 2048 2>/dev/null
openssl req -newkey rsa:2048 -nodes -keyout api.key -out api.csr -subj /CN=api 2>/dev/null
openssl x509 -req -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out api.crt \
    -extfile <(echo "subjectAltName=DNS:localhost,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:10.96.0.1") 2>/dev/null
token=$(openssl rand -hex 16)
echo "$token,admin,1,system:masters" >tokens.csv
cat >kubeconfig <<KUBECONFIG
{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: "https://127.0.0.1:$api_port", certificate-authority: $work/ca.crt}}],
 users: [{name: u, user: {token: $token}}], contexts: [{name: c, context: {cluster: c, user: u}}]}
KUBECONFIG
export KUBECONFIG=$work/kubeconfig
cd - >/dev/null

start etcd etcd --data-dir "$work/etcd" --listen-client-urls "http://127.0.0.1:$etcd_port" --advertise-client-urls "http://127.0.0.1:$etcd_port" \
    --listen-peer-urls "http://127.0.0.1:$peer_port" --initial-advertise-peer-urls "http://127.0.0.1:$peer_port" \
    --initial-cluster "default=http://127.0.0.1:$peer_port" --unsafe-no-fsync --log-level warn
start api kube-apiserver --etcd-servers="http://127.0.0.1:$etcd_port" --bind-address=127.0.0.1 --secure-port="$api_port" \
    --advertise-address=127.0.0.1 --endpoint-reconciler-type=none --tls-cert-file="$work/api.crt" --tls-private-key-file="$work/api.key" \
    --client-ca-file="$work/ca.crt" --token-auth-file="$work/tokens.csv" --authorization-mode=RBAC \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$work/sa.key" \
    --service-account-signing-key-file="$work/sa.key" --service-cluster-ip-range=10.96.0.0/16
wait_for 90 "the API server" kubectl get --raw /readyz
start controllers kube-controller-manager --kubeconfig="$KUBECONFIG" --bind-address=127.0.0.1 --secure-port=0 --leader-elect=false \
    --service-account-private-key-file="$work/sa.key" --root-ca-file="$work/ca.crt" --controllers='*'
start scheduler kube-scheduler --kubeconfig="$KUBECONFIG" --bind-address=127.0.0.1 --secure-port=0 --leader-elect=false
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
