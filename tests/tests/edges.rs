//! The crate edges of the design, held over `cargo metadata`:
//!
//! ```text
//!   batch ─► shared ◄─ speed        layers meet through the log and the store alone
//!              ▲
//!           serving                 only cli, tests and bench see all
//! ```
//!
//! And where unsafe code may stand: in one module.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The one module that may, below the workspace's root.
const NATIVE: &str = "shared/log/src/kafka/native.rs";
/// The keyword, and the lint's name; written so that this file does not hold them.
const KEYWORD: &str = concat!("un", "safe");
const LINT: &str = concat!("un", "safe_code");

/// What cargo knows of the workspace.
struct Workspace {
    root: PathBuf,
    metadata: Value,
}

/// A package of the workspace.
struct Member<'a> {
    package: &'a Value,
    /// Its folder below the root.
    folder: String,
}

impl Workspace {
    fn new() -> Self {
        // The platform's own packages are all here, for this test was built from them; those of others need not be.
        let rustc = output(Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into())).arg("-vV"));
        let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["metadata", "--format-version", "1", "--offline", "--filter-platform", host]);
        cargo.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        let metadata: Value = serde_json::from_str(&output(&mut cargo)).expect("metadata is JSON");
        Self { root: PathBuf::from(text(&metadata["workspace_root"])), metadata }
    }

    fn members(&self) -> impl Iterator<Item = Member<'_>> {
        let ids: BTreeSet<&str> = list(&self.metadata["workspace_members"]).iter().map(text).collect();
        let packages = list(&self.metadata["packages"]).iter();
        packages.filter(move |package| ids.contains(text(&package["id"]))).map(|package| {
            let folder = Path::new(text(&package["manifest_path"])).parent().expect("a manifest is in a folder");
            let folder = folder.strip_prefix(&self.root).expect("members are below the root");
            Member { package, folder: folder.to_str().expect("a readable name").replace('\\', "/") }
        })
    }

    /// The names of all packages that the member in `folder` is built with.
    fn built_with(&self, folder: &str) -> BTreeSet<&str> {
        let nodes = list(&self.metadata["resolve"]["nodes"]).iter().map(|node| (text(&node["id"]), node));
        let nodes: BTreeMap<&str, &Value> = nodes.collect();
        let names = list(&self.metadata["packages"]).iter().map(|p| (text(&p["id"]), text(&p["name"])));
        let names: BTreeMap<&str, &str> = names.collect();
        let member = self.members().find(|member| member.folder == folder).expect("a member");
        let mut open = vec![text(&member.package["id"])];
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            for dependency in list(&nodes[id]["deps"]) {
                // Normal dependencies have no kind; the others are for building and for tests.
                let normal = list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
                let id = text(&dependency["pkg"]);
                if normal && seen.insert(id) {
                    open.push(id);
                }
            }
        }
        seen.into_iter().map(|id| names[id]).collect()
    }
}

impl Member<'_> {
    /// The part of the system it belongs to: the first folder of its path.
    fn part(&self) -> &str {
        self.folder.split('/').next().expect("a path has a first part")
    }

    /// Its direct dependencies: name, and kind where it is not the normal one.
    fn dependencies(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        list(&self.package["dependencies"]).iter().map(|d| (text(&d["name"]), d["kind"].as_str()))
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it writes UTF-8")
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// Whether a crate of the part `from` may depend, in whatever kind, on one of the part `to`.
fn may_depend(from: &str, to: &str) -> bool {
    match from {
        "shared" | "batch" | "speed" | "serving" => to == "shared",
        "cli" => matches!(to, "shared" | "batch" | "speed" | "serving"),
        "tests" | "bench" => matches!(to, "shared" | "batch" | "speed" | "serving" | "cli"),
        other => {
            panic!("the layout knows no {other:?}: say in docs/ARCHITECTURE.md what may depend on what, then here")
        }
    }
}

#[test]
fn layers_depend_on_shared_alone() {
    let workspace = Workspace::new();
    let parts: BTreeMap<String, String> =
        workspace.members().map(|m| (text(&m.package["name"]).to_string(), m.part().to_string())).collect();
    assert!(
        ["shared", "batch", "speed", "serving", "cli", "tests"].iter().all(|part| parts.values().any(|p| p == part))
    );
    for member in workspace.members() {
        for (name, _) in member.dependencies() {
            let Some(to) = parts.get(name) else { continue };
            assert!(may_depend(member.part(), to), "{} must not depend on {name}", member.folder);
        }
    }
}

#[test]
fn ledger_is_free_of_engines_and_of_io() {
    let workspace = Workspace::new();
    let heavy = |name: &&&str| {
        let engines = ["datafusion", "arrow", "parquet", "rdkafka", "object_store", "tokio", "hyper", "redb"];
        engines.iter().any(|engine| name.starts_with(engine))
    };
    let ledger = workspace.built_with("shared/ledger");
    assert!(ledger.contains("serde"), "{ledger:?}");
    assert_eq!(ledger.iter().find(heavy), None, "simulations of the ledger build in seconds");
    // The same question of a crate that has them: the walk finds what is there.
    assert!(workspace.built_with("shared/fold").contains("datafusion-functions-aggregate"));
}

#[test]
fn kafka_stands_behind_the_log() {
    for member in Workspace::new().members() {
        for (name, kind) in member.dependencies() {
            let allowed =
                member.folder == "shared/log" || matches!(member.part(), "tests" | "bench") || kind == Some("dev");
            assert!(allowed || !name.starts_with("rdkafka"), "{} depends on {name}", member.folder);
        }
    }
}

#[test]
fn one_module_alone_holds_unsafe_code() {
    let workspace = Workspace::new();
    let manifest = fs::read_to_string(workspace.root.join("Cargo.toml")).unwrap();
    assert!(manifest.contains(&format!("{LINT} = \"deny\"")), "the workspace denies it");
    let mut files = vec![];
    for member in workspace.members() {
        let folder = workspace.root.join(&member.folder);
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{} has the workspace's lints", member.folder);
        sources(&folder, &mut files);
    }
    assert!(files.len() > 50, "{} files", files.len());
    let mut found = 0;
    for file in files {
        let code = without_comments(&fs::read_to_string(&file).unwrap());
        if file == workspace.root.join(NATIVE) {
            found += words(&code).filter(|word| *word == KEYWORD).count();
            continue;
        }
        let word = words(&code).find(|word| [KEYWORD, LINT].contains(word));
        assert_eq!(word, None, "{}: only {NATIVE} may", file.display());
    }
    assert!(found > 0, "{NATIVE} has moved, or needs its permission no longer");
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Code without what follows `//` on a line.
fn without_comments(code: &str) -> String {
    code.lines().map(|line| line.split("//").next().unwrap_or_default().to_string() + "\n").collect()
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}
