//! The image's first stage: the manifests that it copies are a workspace that cargo takes.

use std::path::Path;
use std::process::Command;

#[test]
fn the_manifests_that_the_image_is_built_from_are_a_whole_workspace() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let text = std::fs::read_to_string(root.join("deploy/Dockerfile")).expect("the recipe");
    let folder = tempfile::tempdir().expect("a folder");
    let first_stage = text.split("COPY . .").next().expect("a first part");
    let mut manifests = 0;
    for line in first_stage.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let (files, to) = line.rsplit_once(' ').expect("what, and whereto");
        for file in files.split(' ') {
            let to = folder.path().join(to).join(Path::new(file).file_name().expect("a name"));
            std::fs::create_dir_all(to.parent().expect("a folder")).expect("it is made");
            std::fs::copy(root.join(file), &to).unwrap_or_else(|e| panic!("{file}: {e}"));
            if to.ends_with("Cargo.toml") && file != "Cargo.toml" {
                let src = to.parent().expect("a folder").join("src");
                std::fs::create_dir_all(&src).expect("it is made");
                for (name, text) in [("main.rs", "fn main() {}"), ("lib.rs", "")] {
                    std::fs::write(src.join(name), text).expect("it is written");
                }
                manifests += 1;
            }
        }
    }
    assert!(manifests > 10, "{manifests}");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let metadata = Command::new(cargo)
        .args(["metadata", "--locked", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(folder.path())
        .output()
        .expect("cargo runs");
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
}
