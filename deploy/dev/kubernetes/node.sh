#!/usr/bin/env bash
# usage: deploy/dev/kubernetes/node.sh IMAGE.tar
# The chart on a real Kubernetes node: API server, kubelet, containerd, kube-proxy and CoreDNS in a network namespace of their own,
# with Apache Kafka and an S3 server beside them, and the image that deploy/image.sh made. Events go in, the CronJob's batch run
# completes, merged answers are read through the Service and compared with sums of our own; limits and probes are looked at; then every
# role is restarted, by rollout and by kill -9, while events go in and queries are asked: each answer must count exactly the offsets that
# its coverage names. Needs root, and by apt: containerd runc containernetworking-plugins nftables iproute2 busybox-static buildah.
#
#   KUBE_BIN   a folder with etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubectl, helm, kubelet, kube-proxy (1.33), coredns
#   BIFOLD     a bifold to produce and query with
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

[ $# -eq 1 ] || { echo "usage: ${0##*/} IMAGE.tar" >&2; exit 2; }
image=$(realpath "$1")
bin=${KUBE_BIN:?a folder with the programs of Kubernetes}
bifold=$(realpath "${BIFOLD:?a bifold to produce with}")
export PATH=$bin:$PATH
for program in etcd kube-apiserver kube-controller-manager kube-scheduler kubectl helm kubelet kube-proxy coredns containerd runc nft ip busybox buildah; do
    command -v "$program" >/dev/null || { echo "there is no $program" >&2; exit 1; }
done
work=$(mktemp -d /tmp/bifold-node.XXXXXX)
# containerd's sockets have short paths.
run=$(mktemp -d /run/bifold-node.XXXX)
space=bifold-node address=10.250.0.1
pids=()
inside=(nsenter "--net=/run/netns/$space")
in_space() { "${inside[@]}" "$@"; }
finish() {
    local code=$?
    set +e
    if [ "$code" != 0 ]; then
        in_space kubectl -n bifold get pods -o wide >&2
        in_space kubectl -n bifold get events --sort-by=.lastTimestamp 2>/dev/null | tail -n 20 >&2
        tail -n 3 "$work"/*.log >&2
    fi
    in_space kubectl delete namespace bifold --timeout=40s >/dev/null 2>&1
    kill "${pids[@]}" 2>/dev/null
    wait 2>/dev/null
    deploy/dev/kafka/stop.sh "$work/kafka" >/dev/null 2>&1
    deploy/dev/s3/stop.sh "$work/s3" >/dev/null 2>&1
    pgrep -f -- "containerd-shim-runc-v2 .*-address $run/containerd.sock" | while read -r shim; do pkill -9 -P "$shim"; kill -9 "$shim"; done
    sleep 1
    grep -E " ($work|$run|/run/netns/cni-)" /proc/mounts | awk '{print $2}' | sort -r | while read -r m; do umount -l "$m"; done
    for n in /run/netns/cni-*; do [ -e "$n" ] && ip netns del "$(basename "$n")"; done
    for h in /sys/fs/cgroup/kubepods /sys/fs/cgroup/*/kubepods; do [ -d "$h" ] && find "$h" -depth -type d -exec rmdir {} \; 2>/dev/null; done
    ip netns del "$space" 2>/dev/null
    [ ! -s "$work/sysctl.before" ] || sysctl -qp "$work/sysctl.before"
    rm -rf "$work" "$run"
    exit "$code"
}
trap finish EXIT
# shellcheck source=control-plane.sh
. deploy/dev/kubernetes/control-plane.sh

# --- a network of its own, the control plane, a node ---------------------------------------------------------------------
ip netns add "$space"
ip -n "$space" link set lo up
ip -n "$space" link add node0 type bridge
ip -n "$space" addr add "$address/24" dev node0
ip -n "$space" link set node0 up
ip -n "$space" route add default dev node0
in_space sysctl -qw net.ipv4.ip_forward=1
sysctl vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes >"$work/sysctl.before"
control_plane "$address" "${inside[@]}"

mkdir -p "$work"/{cni,kubelet,podlogs,static,pause}
cat >"$work/containerd.toml" <<TOML
version = 2
root = "$work/containerd"
state = "$run"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "$run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$work/cni"
TOML
cat >"$work/cni/10-bridge.conflist" <<CNI
{"cniVersion":"0.4.0","name":"bridge","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":false,"hairpinMode":true,
  "ipam":{"type":"host-local","dataDir":"$work/ipam","ranges":[[{"subnet":"10.244.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}
CNI
cat >"$work/kubelet.yaml" <<KUBELET
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://$run/containerd.sock
cgroupDriver: cgroupfs
failSwapOn: false
maxOpenFiles: 20000
oomScoreAdj: 0
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
address: $address
healthzBindAddress: 127.0.0.1
clusterDNS: [$address]
clusterDomain: cluster.local
podLogsDir: $work/podlogs
staticPodPath: $work/static
nodeStatusUpdateFrequency: 2s
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
resolvConf: $work/resolv.conf
KUBELET
echo "nameserver 127.0.0.1" >"$work/resolv.conf"
# The image of the container that holds a pod's network.
cp "$(command -v busybox)" "$work/pause/busybox"
printf 'FROM scratch\nCOPY busybox /busybox\nUSER 65535:65535\nENTRYPOINT ["/busybox", "sleep", "2147483647"]\n' >"$work/pause/Dockerfile"
export STORAGE_DRIVER=vfs
b() { buildah --root "$work/storage" --runroot "$work/runroot" "$@"; }
b bud -q --isolation=chroot --pull-never -t localhost/pause:1 "$work/pause" >/dev/null
b push -q localhost/pause:1 "docker-archive:$work/pause.tar:localhost/pause:1"
start containerd "${inside[@]}" containerd -c "$work/containerd.toml"
images() { ctr -a "$run/containerd.sock" -n k8s.io images "$@"; }
wait_for 30 containerd ctr -a "$run/containerd.sock" version
images import "$work/pause.tar" >/dev/null
images import "$image" >/dev/null
name=$(images ls -q | grep bifold | head -1)
start kubelet "${inside[@]}" kubelet --config="$work/kubelet.yaml" --kubeconfig="$KUBECONFIG" --root-dir="$work/kubelet" --cert-dir="$work/kubelet/pki" \
    --hostname-override=node-1 --node-ip="$address"
start proxy "${inside[@]}" kube-proxy --kubeconfig="$KUBECONFIG" --proxy-mode=nftables --hostname-override=node-1 --cluster-cidr=10.244.0.0/16 \
    --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
cat >"$work/Corefile" <<DNS
cluster.local:53 {
  bind $address
  errors
  kubernetes cluster.local {
    kubeconfig $KUBECONFIG
    ttl 5
  }
}
DNS
start dns "${inside[@]}" coredns -conf "$work/Corefile"
wait_for 60 "the node" in_space kubectl wait --for=condition=Ready node/node-1 --timeout=1s
brokers=$(KAFKA_HOST=$address in_space deploy/dev/kafka/start.sh "$work/kafka" 2>/dev/null)
# Its folder is the bucket's.
eval "$(S3_HOST=$address in_space deploy/dev/s3/start.sh "$work/s3")"
echo "node: $(in_space kubectl get node node-1 -o jsonpath='{.status.nodeInfo.kubeletVersion} {.status.nodeInfo.containerRuntimeVersion}') is ready, Kafka and S3 beside it, after ${SECONDS} s"

# --- the chart -----------------------------------------------------------------------------------------------------------
k() { in_space kubectl -n bifold "$@"; }
k create namespace bifold >/dev/null
k label namespace bifold pod-security.kubernetes.io/enforce=restricted >/dev/null
k create secret generic s3 --from-literal=AWS_ACCESS_KEY_ID="$AWS_ACCESS_KEY_ID" --from-literal=AWS_SECRET_ACCESS_KEY="$AWS_SECRET_ACCESS_KEY" >/dev/null
cat >"$work/pipeline.sql" <<'SQL'
CREATE TABLE events (time TIMESTAMP, kind TEXT, amount BIGINT, WATERMARK FOR time AS time - INTERVAL '10 seconds')
WITH (connector = 'kafka', topic = 'events', format = 'json');

CREATE MATERIALIZED VIEW by_minute AS
SELECT tumble(time, INTERVAL '1 minute') AS minute, kind, count(*) AS n, sum(amount) AS amount FROM events GROUP BY 1, 2;
SQL
cat >"$work/values.yaml" <<VALUES
image: {repository: ${name%:*}, tag: ${name##*:}, pullPolicy: Never}
kafka: {brokers: "$brokers"}
store:
  url: s3://bifold/events
  existingSecret: s3
  env: {AWS_ENDPOINT: "$AWS_ENDPOINT", AWS_ALLOW_HTTP: "true", AWS_REGION: us-east-1}
config: {startup_timeout: 0s, speed.epoch_interval: 2s, collect.flush_interval: 2s}
collect: {resources: {requests: {cpu: 50m, memory: 128Mi}, limits: {memory: 512Mi}}}
speed: {resources: {requests: {cpu: 50m, memory: 128Mi}, limits: {memory: 512Mi}}}
serve: {resources: {requests: {cpu: 50m, memory: 128Mi}, limits: {memory: 512Mi}}}
batch: {memory: 256MiB, resources: {requests: {cpu: 50m, memory: 128Mi}, limits: {memory: 512Mi}}}
VALUES
# lines FROM TO: events of two kinds, a second apart; the amount is the event's number.
lines() { seq "$1" "$(($2 - 1))" | awk '{ printf "{\"time\": \"2026-03-01T%02d:%02d:%02dZ\", \"kind\": \"%s\", \"amount\": %d}\n", $1 / 3600 % 24, $1 / 60 % 60, $1 % 60, $1 % 3 ? "a" : "b", $1 }'; }
produce() { in_space "$bifold" produce events - --pipeline "$work/pipeline.sql" --data-dir "$work/data" --brokers "$brokers" --create-topic 4 "$@"; }
first=20000 second=30000
lines 0 $first | produce >/dev/null
in_space helm install bifold deploy/helm/bifold -n bifold --values "$work/values.yaml" --set-file "pipeline.pipeline\.sql=$work/pipeline.sql" \
    --wait --timeout 180s >"$work/install.txt"
echo "node: installed, all roles ready:$(k get pods -l app.kubernetes.io/component -o jsonpath='{range .items[*]} {.metadata.labels.app\.kubernetes\.io/component}{end}'), after ${SECONDS} s"
in_space helm test bifold -n bifold --timeout 60s >"$work/test.txt" && echo "node: helm test passed"
k create job --from=cronjob/bifold-batch now >/dev/null
k wait --for=condition=Complete job/now --timeout=120s >/dev/null
offsets=$(lines $first $second | produce --output json | sed -n 's/.*"offsets":"\([^"]*\)".*/\1/p')

# --- merged answers through the Service -----------------------------------------------------------------------------------
service=http://$(k get service bifold -o jsonpath='{.spec.clusterIP}'):7070
ask() { in_space curl -sS -m 20 -o "$work/answer" -w '%{http_code}' "$service/v1/sql" -d "$1"; }
code=$(ask '{"sql": "SELECT kind, sum(n) AS n, sum(amount) AS amount FROM by_minute GROUP BY kind ORDER BY kind", "at_least": "'"$offsets"'"}')
[ "$code" = 200 ] || { cat "$work/answer"; exit 1; }
python3 - "$work/answer" $second <<'PYTHON'
import json, sys
answer, events = json.load(open(sys.argv[1])), int(sys.argv[2])
expected = [{"kind": kind, "n": len(part), "amount": sum(part)} for kind, part in
            (("a", [i for i in range(events) if i % 3]), ("b", [i for i in range(events) if i % 3 == 0]))]
assert answer["rows"] == expected, (answer["rows"], expected)
parts = answer["coverage"][0]["partitions"]
batch, speed = (sum(part[layer][1] - part[layer][0] for part in parts) for layer in ("batch", "speed"))
assert batch > 0 and speed > 0 and batch + speed == events, (batch, speed)
print(f"node: the merged answer through the Service is right: {events} events, {batch} of them from the batch view, {speed} from the speed layer")
PYTHON

# --- limits and probes ------------------------------------------------------------------------------------------------------
for role in collect speed serve; do
    pod=$(k get pods -l app.kubernetes.io/component=$role -o jsonpath='{.items[0].metadata.name}')
    uid=$(k get pod "$pod" -o jsonpath='{.metadata.uid}')
    limit=$(find /sys/fs/cgroup -path "*kubepods*pod$uid*" \( -name memory.max -o -name memory.limit_in_bytes \) -exec cat {} + 2>/dev/null | grep -c '^536870912$' || true)
    [ "$limit" -ge 1 ] || { echo "$role has no memory limit of 512 MiB in its cgroup" >&2; exit 1; }
    probes=$(k get pod "$pod" -o jsonpath='{.spec.containers[0].livenessProbe.httpGet.path} {.spec.containers[0].readinessProbe.httpGet.path}')
    [ "$probes" = "/healthz /readyz" ] || { echo "$role is probed by $probes" >&2; exit 1; }
done
echo "node: every role runs under its memory limit and is probed by /healthz and /readyz"

# --- restarts under queries --------------------------------------------------------------------------------------------------
# A poller asks again and again; every answer must count exactly the offsets that it covers.
cat >"$work/poll.py" <<'PYTHON'
import collections, json, sys, time, urllib.error, urllib.request
service, out, phases = sys.argv[1:]
body = json.dumps({"sql": "SELECT coalesce(sum(n), 0) AS n FROM by_minute", "timeout_ms": 5000}).encode()
counted, most = collections.defaultdict(collections.Counter), 0
while (phase := open(phases).read().strip()) != "stop":
    count = counted[phase]
    count["asked"] += 1
    try:
        request = urllib.request.Request(service + "/v1/sql", body, {"Content-Type": "application/json"})
        answer = json.load(urllib.request.urlopen(request, timeout=10))
        covered = sum(p["speed"][1] - p["batch"][0] for p in answer["coverage"][0]["partitions"])
        count["wrong"] += answer["rows"][0]["n"] != covered
        count["covering less than one before"] += covered < most
        most = max(most, covered)
    except urllib.error.HTTPError as error:
        count["failed: " + json.load(error).get("type", str(error.code))] += 1
    except Exception as error:
        count["failed: " + type(error).__name__] += 1
    time.sleep(0.01)
json.dump({phase: {what: n for what, n in count.items() if n or what == "wrong"} for phase, count in counted.items()}, open(out, "w"))
PYTHON
third=90000
echo "before" >"$work/phase"
in_space python3 "$work/poll.py" "$service" "$work/polled.json" "$work/phase" &
poller=$!
lines $second $third | produce --rate 1000 >"$work/produced.json" &
producer=$!
for role in deployment/bifold-serve statefulset/bifold-speed deployment/bifold-collect; do
    echo "rollout of ${role#*/bifold-}" >"$work/phase"
    k rollout restart $role >/dev/null
    k rollout status $role --timeout=120s >/dev/null
    echo "node: $role was restarted by rollout, after ${SECONDS} s"
done
for role in speed collect serve; do
    before=$(k get pods -l app.kubernetes.io/component=$role -o jsonpath='{.items[0].status.containerStatuses[0].restartCount}')
    pod=$(k get pods -l app.kubernetes.io/component=$role -o jsonpath='{.items[0].metadata.name}')
    uid=$(k get pod "$pod" -o jsonpath='{.metadata.uid}')
    echo "kill -9 of $role" >"$work/phase"
    # The pod's processes are those of its cgroup; the pause container sleeps.
    for process in $(pgrep -f "bifold $role"); do
        if grep -q "pod$uid" "/proc/$process/cgroup"; then kill -9 "$process"; fi
    done
    again() { [ "$(k get pod "$pod" -o jsonpath='{.status.containerStatuses[0].restartCount}')" -gt "$before" ] && k wait --for=condition=Ready "pod/$pod" --timeout=1s; }
    wait_for 90 "$role to be started again" again
    echo "node: $role was killed by -9 and started again by the kubelet, after ${SECONDS} s"
done
echo "batch run" >"$work/phase"
k create job --from=cronjob/bifold-batch again >/dev/null
k wait --for=condition=Complete job/again --timeout=120s >/dev/null
wait "$producer"
echo stop >"$work/phase"
wait "$poller"
offsets=$(sed -n 's/.*"offsets":"\([^"]*\)".*/\1/p' "$work/produced.json")
code=$(ask '{"sql": "SELECT sum(n) AS n, sum(amount) AS amount FROM by_minute", "at_least": "'"$offsets"'", "timeout_ms": 20000}')
[ "$code" = 200 ] || { cat "$work/answer"; exit 1; }
python3 - "$work/answer" "$work/polled.json" $third <<'PYTHON'
import json, sys
answer, polled, events = json.load(open(sys.argv[1])), json.load(open(sys.argv[2])), int(sys.argv[3])
assert answer["rows"] == [{"n": events, "amount": events * (events - 1) // 2}], answer["rows"]
for phase, count in polled.items():
    print(f"node: answers during {phase}: {count}")
assert sum(count["asked"] for count in polled.values()) > 100 and not any(count["wrong"] for count in polled.values()), polled
PYTHON
k logs job/again | tail -n 1
in_space helm uninstall bifold -n bifold --wait --timeout 60s >/dev/null
echo "node: all is right; ${SECONDS} s in all"
