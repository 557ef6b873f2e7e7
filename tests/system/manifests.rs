//! What the Kubernetes manifests say of each role, done to the real processes: arguments, environment, ports, probes, and the
//! signal that ends a pod. Read from `deploy/kubernetes/bifold.yaml`; on Kafka alone, which these roles need.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Case, Service};

const PIPELINE: &str = "CREATE TABLE e (t TIMESTAMP, k TEXT, WATERMARK FOR t AS t) \
    WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
    CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n FROM e GROUP BY k;";

/// A role's pod.
struct Pod {
    role: String,
    container: Value,
    grace: Option<u64>,
}

struct Manifests {
    pods: Vec<Pod>,
    /// Each ConfigMap's data.
    settings: BTreeMap<String, BTreeMap<String, String>>,
    /// Each Service's selected role and port.
    services: BTreeMap<String, (String, Value)>,
}

fn manifests() -> Manifests {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("deploy/kubernetes/bifold.yaml");
    let text = std::fs::read_to_string(path).expect("the manifests");
    let mut found = Manifests { pods: vec![], settings: BTreeMap::new(), services: BTreeMap::new() };
    for document in serde_yaml_ng::Deserializer::from_str(&text) {
        let document = <Value as serde::Deserialize>::deserialize(document).expect("YAML");
        let name = document["metadata"]["name"].as_str().unwrap_or_default().to_string();
        let pod = match document["kind"].as_str() {
            Some("Deployment" | "StatefulSet") => &document["spec"]["template"],
            Some("CronJob") => &document["spec"]["jobTemplate"]["spec"]["template"],
            Some("ConfigMap") => {
                let data = document["data"].as_object().expect("data").iter();
                let text = |value: &Value| value.as_str().expect("a string").to_string();
                found.settings.insert(name, data.map(|(key, value)| (key.clone(), text(value))).collect());
                continue;
            }
            Some("Service") => {
                let role = document["spec"]["selector"]["app.kubernetes.io/component"].as_str().expect("a role");
                found.services.insert(name, (role.to_string(), document["spec"]["ports"][0].clone()));
                continue;
            }
            _ => continue,
        };
        let containers = pod["spec"]["containers"].as_array().expect("containers");
        assert_eq!(containers.len(), 1, "{name}");
        found.pods.push(Pod {
            role: containers[0]["name"].as_str().expect("a name").to_string(),
            container: containers[0].clone(),
            grace: pod["spec"]["terminationGracePeriodSeconds"].as_u64(),
        });
    }
    found
}

impl Pod {
    fn arguments(&self) -> Vec<&str> {
        self.container["args"].as_array().expect("args").iter().map(|arg| arg.as_str().expect("a string")).collect()
    }

    /// The port that probes and services mean.
    fn port(&self) -> Option<u64> {
        self.container["ports"].as_array().map(|ports| {
            assert_eq!((ports.len(), &ports[0]["name"]), (1, &Value::from("http")), "{}", self.role);
            ports[0]["containerPort"].as_u64().expect("a port")
        })
    }

    /// Its environment on this machine: what it reaches is elsewhere, all else is as it is.
    fn environment(&self, manifests: &Manifests, case: &Case, speed: &str) -> BTreeMap<String, String> {
        let mut environment = BTreeMap::new();
        for from in self.container["envFrom"].as_array().expect("envFrom") {
            let name = from["configMapRef"]["name"].as_str().expect("a ConfigMap");
            environment.extend(manifests.settings[name].clone());
        }
        let folder = |name: &str| case.path(name).display().to_string();
        for (name, here) in [
            ("BIFOLD_KAFKA__BROKERS", crate::harness::brokers().expect("a broker")),
            ("BIFOLD_STORE__URL", folder("store")),
            ("BIFOLD_PIPELINE", folder("pipeline")),
            ("BIFOLD_DATA_DIR", folder(&format!("data-{}", self.role))),
            ("BIFOLD_SERVE__SPEED", speed.to_string()),
            ("BIFOLD_KAFKA__GROUP_PREFIX", case.topic.clone()),
        ] {
            assert!(environment.insert(name.to_string(), here).is_some(), "{} has {name}", self.role);
        }
        environment
    }

    /// The container's program with its arguments, on any free port, and without a configuration file.
    fn start(&self, manifests: &Manifests, case: &Case, speed: &str) -> Service {
        let port = self.port().expect("a service has a port");
        let address = format!("0.0.0.0:{port}");
        let arguments: Vec<&str> =
            self.arguments().into_iter().map(|arg| if arg == address { "0.0.0.0:0" } else { arg }).collect();
        assert!(arguments.contains(&"0.0.0.0:0"), "{} listens on its port: {:?}", self.role, self.arguments());
        let environment = self.environment(manifests, case, speed);
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (&**name, &**value)).collect();
        let mut service = case.spawn(&arguments, &environment);
        service.wait_ready();
        service.url = service.url.replace("0.0.0.0", "127.0.0.1");
        service
    }
}

/// Lays out the pipeline as a mounted ConfigMap is: links to links.
fn mount_pipeline(case: &Case, pipeline: &str) {
    let folder = case.path("pipeline");
    std::fs::create_dir_all(folder.join("..2026_01_01")).expect("a folder");
    std::fs::write(folder.join("..2026_01_01/pipeline.sql"), pipeline).expect("written");
    std::os::unix::fs::symlink("..2026_01_01", folder.join("..data")).expect("a link");
    std::os::unix::fs::symlink("..data/pipeline.sql", folder.join("pipeline.sql")).expect("a link");
}

#[test]
fn the_default_pipeline_is_right() {
    let manifests = manifests();
    let case = Case::on(PIPELINE, None);
    mount_pipeline(&case, &manifests.settings["bifold-pipeline"]["pipeline.sql"]);
    let folder = case.path("pipeline").display().to_string();
    let checked = case.run_with(&["check", "--output", "json"], &[("BIFOLD_PIPELINE", &folder)], b"").json();
    assert_eq!(checked[0]["view"], "events_by_minute");
}

#[test]
fn roles_run_as_their_manifests_say() {
    let manifests = manifests();
    let case = Case::new(PIPELINE);
    if !case.is_kafka() {
        return;
    }
    case.create_topic(2);
    mount_pipeline(&case, &PIPELINE.replace("{topic}", &case.topic));
    // Nothing but the pod's own arguments and environment.
    std::fs::write(case.path("bifold.toml"), "").expect("written");
    let pod = |role: &str| manifests.pods.iter().find(|pod| pod.role == role).unwrap_or_else(|| panic!("a {role}"));
    let mut roles: Vec<&str> = manifests.pods.iter().map(|pod| &*pod.role).collect();
    roles.sort_unstable();
    assert_eq!(roles, ["batch", "collect", "serve", "speed"]);
    for (name, (role, port)) in &manifests.services {
        assert_eq!(port["targetPort"], "http", "{name}");
        assert_eq!(port["port"].as_u64(), pod(role).port(), "{name}");
    }
    let collect = pod("collect").start(&manifests, &case, "");
    let speed = pod("speed").start(&manifests, &case, "");
    let serve = pod("serve").start(&manifests, &case, &speed.url);
    let lines: Vec<String> = (0..40).map(|i| format!(r#"{{"t":"2026-01-01T00:00:00Z","k":"k{}"}}"#, i % 2)).collect();
    let end = case.produce_to(&case.topic, lines.iter().map(|line| (None, Some(line.as_bytes().to_vec()))));
    let expected = serde_json::json!([{"k": "k0", "n": 20}, {"k": "k1", "n": 20}]);
    let rows = || Value::Array(serve.rows("SELECT * FROM v ORDER BY k", &end));
    assert_eq!(rows(), expected);
    // The CronJob's container, to its end.
    let batch = pod("batch");
    assert_eq!((batch.port(), batch.grace), (None, None));
    let environment = batch.environment(&manifests, &case, "");
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut arguments = batch.arguments();
    arguments.extend(["--at-least", &end]);
    let runs = case.run_with(&arguments, &environment, b"").json();
    assert_eq!((&runs[0]["view"], &runs[0]["boundary"]), (&Value::from("v"), &Value::from(end.as_str())), "{runs:?}");
    assert_eq!(rows(), expected);
    // Probes and metrics, then the end of a pod: SIGTERM, and 0 within its grace.
    for (role, mut service) in [("serve", serve), ("speed", speed), ("collect", collect)] {
        let pod = pod(role);
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let get = &pod.container[probe]["httpGet"];
            assert_eq!(get["port"], "http", "{role} {probe}");
            let reply = service.get(get["path"].as_str().expect("a path"));
            assert_eq!(reply.status, 200, "{role} {probe}: {}", reply.text);
        }
        assert!(service.get("/metrics").text.contains("process_resident_memory_bytes"), "{role}");
        let begun = Instant::now();
        assert_eq!(service.terminate(), Some(0), "{role}: {}", service.stderr());
        assert!(begun.elapsed() < Duration::from_secs(pod.grace.expect("a grace")), "{role}");
    }
}
