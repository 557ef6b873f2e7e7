//! Every command of README, docs/guide and the examples, as a reader would type it.
//!
//! A page is a folder of its own. A block under a line such as `` `pipeline.sql`: `` is that file. Each line of a block of
//! commands is run in order: services go on in the background until the page ends or the same service is started again. A block of
//! text after commands is what they print; `…` stands for anything. `<!-- with: examples/NAME -->` starts a page with an example's
//! pipeline and events in a running `up`. What needs a cluster, a release build or hours is run by others, and named in [`ELSEWHERE`].

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The beginnings of commands that this test does not run, and where they are run.
const ELSEWHERE: [(&str, &str); 5] = [
    ("cargo run --release -- demo", ".ci/run"),
    ("cargo test --workspace", ".ci/run"),
    ("helm install", "deploy/check.sh"),
    ("bench/", "docs/performance.md"),
    ("deploy/", ".ci/run"),
];
/// How indented blocks of commands begin; others are formulas and drawings.
const WORDS: [&str; 7] = ["bifold ", "cargo ", "helm ", "curl ", "bench/", "deploy/", "python3 "];
const SERVICES: [&str; 4] = ["bifold up", "bifold collect", "bifold speed", "bifold serve"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

#[derive(Debug)]
enum Block {
    File { name: String, text: String },
    Commands(Vec<String>),
    Printed(String),
    With(String),
}

/// The blocks of a page.
fn blocks(page: &str) -> Vec<Block> {
    let (mut found, mut before, mut blank, mut lines) = (vec![], String::new(), true, page.lines().peekable());
    while let Some(line) = lines.next() {
        let language = line.strip_prefix("```");
        if let Some(language) = language {
            let text: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            let name = before.strip_prefix('`').and_then(|rest| rest.strip_suffix("`:"));
            match (name, language) {
                (Some(name), _) => {
                    found.push(Block::File { name: name.to_string(), text: text.join("\n") + "\n" });
                }
                (None, "sh") => found.push(Block::Commands(commands(&text))),
                (None, "text") if matches!(found.last(), Some(Block::Commands(_))) => {
                    found.push(Block::Printed(text.join("\n")));
                }
                _ => {}
            }
        } else if line.starts_with("    ") && blank && WORDS.iter().any(|word| line.trim().starts_with(word)) {
            let mut text = vec![line];
            while let Some(line) = lines.next_if(|line| line.starts_with("    ")) {
                text.push(line);
            }
            found.push(Block::Commands(commands(&text)));
        } else if let Some(example) = line.strip_prefix("<!-- with: ").and_then(|rest| rest.strip_suffix(" -->")) {
            found.push(Block::With(example.to_string()));
        }
        blank = line.trim().is_empty();
        if !blank {
            before = line.trim().to_string();
        }
    }
    found
}

/// Lines without comments; a backslash at the end joins the next.
fn commands(lines: &[&str]) -> Vec<String> {
    let text =
        lines.iter().map(|line| line.split(" # ").next().unwrap_or_default().trim()).collect::<Vec<_>>().join("\n");
    let joined = text.replace("\\\n", " ");
    joined.lines().map(str::to_string).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// Whether `said` is `written`, in which `…` stands for anything.
fn matches(said: &str, written: &str) -> bool {
    let mut rest = said;
    for (i, part) in written.split('…').enumerate() {
        match rest.find(part) {
            Some(0) => rest = &rest[part.len()..],
            Some(at) if i > 0 => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    rest.is_empty() || written.ends_with('…')
}

/// A page being read: its folder and what runs in it.
struct Reader {
    page: String,
    folder: tempfile::TempDir,
    address: String,
    services: Vec<(String, Child)>,
    printed: String,
    ran: usize,
}

impl Drop for Reader {
    fn drop(&mut self) {
        for (_, child) in &mut self.services {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Reader {
    fn new(page: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bin = folder.path().join(".bin");
        std::fs::create_dir(&bin).expect("a folder");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_bifold"), bin.join("bifold")).expect("a link");
        std::os::unix::fs::symlink(root().join("examples"), folder.path().join("examples")).expect("a link");
        let free =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        Self {
            page: page.to_string(),
            folder,
            address: free.to_string(),
            services: vec![],
            printed: String::new(),
            ran: 0,
        }
    }

    fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("bash");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BIFOLD_")) {
            command.env_remove(name);
        }
        let path =
            format!("{}:{}", self.folder.path().join(".bin").display(), std::env::var("PATH").unwrap_or_default());
        command.args(["-euo", "pipefail", "-c", &line.replace("localhost:7070", &self.address)]);
        command
            .env("PATH", path)
            .env("BIFOLD_SERVE__LISTEN", &self.address)
            .env("BIFOLD_COLLECT__FLUSH_INTERVAL", "1s");
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn start(&mut self, line: &str) {
        let name = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        if let Some(at) = self.services.iter().position(|(running, _)| *running == name) {
            let (_, mut child) = self.services.remove(at);
            let ended = Command::new("kill").arg(child.id().to_string()).status().expect("kill runs");
            assert!(ended.success());
            assert!(child.wait().expect("it ends").success(), "{}: {name}", self.page);
        }
        let log = std::fs::File::create(self.folder.path().join("service.err")).expect("a file");
        let child = self.shell(&format!("exec {line}")).stdout(Stdio::null()).stderr(log).spawn().expect("bash runs");
        self.services.push((name, child));
        let until = Instant::now() + Duration::from_secs(60);
        let ready = format!("curl -sf -o /dev/null http://{}/readyz", self.address);
        while !self.shell(&ready).status().expect("bash runs").success() {
            let said = std::fs::read_to_string(self.folder.path().join("service.err")).unwrap_or_default();
            assert!(Instant::now() < until, "{}: `{line}` is not ready: {said}", self.page);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn run(&mut self, line: &str, table: bool) {
        self.ran += 1;
        if SERVICES.iter().any(|service| line.starts_with(service)) {
            return self.start(line);
        }
        let endless = line.starts_with("bifold demo") && !line.contains("--once") && !line.contains("--for");
        let mut line = if endless { format!("timeout --preserve-status -s INT 20 {line}") } else { line.to_string() };
        if table && line.starts_with("bifold ") && !line.contains("--output") && !line.contains("produce") {
            line.push_str(" --output table");
        }
        let output = self.shell(&line).output().expect("bash runs");
        let [said, failed] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(output.status.success(), "{}: `{line}` ended with {}:\n{said}{failed}", self.page, output.status);
        self.printed.push_str(&said);
    }

    fn read(&mut self, blocks: Vec<Block>) {
        let mut blocks = blocks.into_iter().peekable();
        while let Some(block) = blocks.next() {
            match block {
                Block::File { name, text } => {
                    std::fs::write(self.folder.path().join(name), text).expect("the file is written");
                }
                Block::With(example) => {
                    let copied = std::fs::copy(
                        root().join(&example).join("pipeline.sql"),
                        self.folder.path().join("pipeline.sql"),
                    );
                    copied.expect("the example has a pipeline");
                    self.start("bifold up");
                    let source =
                        std::fs::read_to_string(root().join(&example).join("pipeline.sql")).expect("a pipeline");
                    let source =
                        source.split("CREATE TABLE ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a source");
                    self.run(&format!("bifold produce {source} {example}/events.ndjson"), false);
                    self.run("bifold batch run --at-least latest", false);
                }
                Block::Commands(lines) => {
                    self.printed.clear();
                    let table = matches!(blocks.peek(), Some(Block::Printed(_)));
                    for line in lines {
                        if !ELSEWHERE.iter().any(|(start, _)| line.starts_with(start)) {
                            self.run(&line, table);
                        }
                    }
                }
                Block::Printed(written) => {
                    let said = self.printed.trim_end().to_string();
                    assert!(matches(&said, written.trim_end()), "{}: it prints\n{said}\n— not —\n{written}", self.page);
                }
            }
        }
    }
}

fn check(page: &str) {
    let text = std::fs::read_to_string(root().join(page)).unwrap_or_else(|e| panic!("{page}: {e}"));
    let blocks = blocks(&text);
    let any = blocks.iter().any(|block| matches!(block, Block::Commands(lines) if !lines.is_empty()));
    let mut reader = Reader::new(page);
    reader.read(blocks);
    assert!(!any || reader.ran > 0 || page.ends_with("production.md"), "{page}: nothing was run");
    println!("docs: {page}: {} commands", reader.ran);
}

#[test]
fn the_readme_does_what_it_says() {
    check("README.md");
}

#[test]
fn the_guide_does_what_it_says() {
    let mut pages: Vec<PathBuf> = std::fs::read_dir(root().join("docs/guide"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    pages.sort();
    assert!(pages.len() >= 6);
    for page in pages {
        check(page.strip_prefix(root()).expect("below the root").to_str().expect("a name"));
    }
}

#[test]
fn the_examples_do_what_they_say() {
    for entry in std::fs::read_dir(root().join("examples")).expect("a folder") {
        let entry = entry.expect("an entry").path();
        if entry.is_dir() {
            let name = entry.file_name().expect("a name").to_str().expect("a name");
            check(&format!("examples/{name}/README.md"));
        }
    }
}

#[test]
fn what_is_run_elsewhere_is_run_there() {
    for (command, place) in ELSEWHERE {
        let text = std::fs::read_to_string(root().join(place)).unwrap_or_else(|e| panic!("{place}: {e}"));
        let word = command.split(' ').next().expect("a word").trim_end_matches('/');
        assert!(text.contains(word), "{place} does not run {command}");
    }
}

#[test]
fn what_is_printed_is_compared() {
    assert!(matches("a 12 b\nc", "a … b\nc"));
    assert!(matches("anything", "…"));
    assert!(!matches("a 12 b\nc", "a … d"));
    assert!(!matches("a b c", "a b"));
    assert!(!matches("x a b", "a b"));
}
