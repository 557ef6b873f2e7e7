# Sourced by light.sh and node.sh: Kubernetes' control plane as processes of this shell. Needs $work, a folder of its own, and $pids, an array.
# shellcheck shell=bash disable=SC2154

port() { while :; do p=$((20000 + RANDOM % 12768)); (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null || { echo "$p"; return; }; done; }
start() { local name=$1; shift; "$@" >"$work/$name.log" 2>&1 & pids+=($!); }
wait_for() { local until=$((SECONDS + $1)) what=$2; shift 2; until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $until ] || { echo "waited in vain for $what" >&2; return 1; }; sleep 0.3; done; }

# control_plane ADDRESS [PREFIX…]: etcd, API server, controllers, scheduler; PREFIX is put before each (nsenter …). Sets KUBECONFIG.
control_plane() {
    local address=$1 etcd_port peer_port api_port token reconciler=()
    shift
    [ "$address" != 127.0.0.1 ] || reconciler=(--endpoint-reconciler-type=none)
    etcd_port=$(port) peer_port=$(port) api_port=$(port)
    pushd "$work" >/dev/null || return
    openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca 2>/dev/null
    openssl genrsa -out sa.key 2048 2>/dev/null
    openssl req -newkey rsa:2048 -nodes -keyout api.key -out api.csr -subj /CN=api 2>/dev/null
    openssl x509 -req -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out api.crt \
        -extfile <(echo "subjectAltName=DNS:localhost,DNS:kubernetes.default.svc,IP:$address,IP:10.96.0.1") 2>/dev/null
    token=$(openssl rand -hex 16)
    echo "$token,admin,1,system:masters" >tokens.csv
    cat >kubeconfig <<KUBECONFIG
{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: "https://$address:$api_port", certificate-authority: $work/ca.crt}}],
 users: [{name: u, user: {token: $token}}], contexts: [{name: c, context: {cluster: c, user: u}}]}
KUBECONFIG
    export KUBECONFIG=$work/kubeconfig
    popd >/dev/null || return
    start etcd "$@" etcd --data-dir "$work/etcd" --listen-client-urls "http://127.0.0.1:$etcd_port" --advertise-client-urls "http://127.0.0.1:$etcd_port" \
        --listen-peer-urls "http://127.0.0.1:$peer_port" --initial-advertise-peer-urls "http://127.0.0.1:$peer_port" \
        --initial-cluster "default=http://127.0.0.1:$peer_port" --unsafe-no-fsync --log-level warn
    start api "$@" kube-apiserver --etcd-servers="http://127.0.0.1:$etcd_port" --bind-address="$address" --secure-port="$api_port" \
        --advertise-address="$address" "${reconciler[@]}" --tls-cert-file="$work/api.crt" --tls-private-key-file="$work/api.key" \
        --client-ca-file="$work/ca.crt" --token-auth-file="$work/tokens.csv" --authorization-mode=RBAC \
        --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$work/sa.key" \
        --service-account-signing-key-file="$work/sa.key" --service-cluster-ip-range=10.96.0.0/16 --allow-privileged=true \
        --kubelet-preferred-address-types=InternalIP
    wait_for 90 "the API server" "$@" kubectl get --raw /readyz
    start controllers "$@" kube-controller-manager --kubeconfig="$KUBECONFIG" --bind-address=127.0.0.1 --secure-port=0 --leader-elect=false \
        --service-account-private-key-file="$work/sa.key" --root-ca-file="$work/ca.crt" --controllers='*'
    start scheduler "$@" kube-scheduler --kubeconfig="$KUBECONFIG" --bind-address=127.0.0.1 --secure-port=0 --leader-elect=false
}
