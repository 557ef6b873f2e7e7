//! docs/reference/sql.md says of each statement why it is refused.

use std::path::PathBuf;

use bifold_fold::view::compile_all;
use bifold_fold::{Engine, pipeline};

const SOURCE: &str = "CREATE TABLE events (time TIMESTAMP, \"user\" TEXT, region TEXT, amount BIGINT, price DOUBLE, \
    tags TEXT[], WATERMARK FOR time AS time) WITH (connector = 'kafka', topic = 'events', format = 'json');\n";
/// Words with which no SELECT begins.
const STATEMENTS: [&str; 14] = [
    "CREATE", "DROP", "ALTER", "INSERT", "UPDATE", "DELETE", "SET", "EXPLAIN", "SHOW", "USE", "COPY", "DESCRIBE",
    "TRUNCATE", "GRANT",
];

/// Message and hint of a statement.
fn refusal(runtime: &tokio::runtime::Runtime, engine: &Engine, statement: &str) -> (String, String) {
    let word = statement.split([' ', '(']).next().unwrap_or_default();
    let whole = match STATEMENTS.contains(&word) || statement == "SELECT 1" {
        true => statement.to_string(),
        false => format!("CREATE MATERIALIZED VIEW v AS {statement}"),
    };
    let text = format!("{SOURCE}{whole};");
    let said = match pipeline::parse("p.sql", &text, 1 << 20) {
        Err(error) => error.to_string(),
        Ok(pipeline) => match runtime.block_on(compile_all(engine, &pipeline)) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{statement} is not refused"),
        },
    };
    let mut lines = said.lines();
    let first = lines.next().unwrap_or_default();
    let message = first.splitn(4, ':').nth(3).unwrap_or(first).trim().to_string();
    let hint = said.split("hint: ").nth(1).unwrap_or_default().trim().to_string();
    (message, hint)
}

#[test]
fn what_is_refused_is_documented() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join("docs/reference/sql.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    // Planning recurses deeply.
    let made = std::thread::Builder::new().stack_size(bifold_fold::STACK).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let engine = Engine::new();
        let mut count = 0;
        let lines = page.lines().map(|line| match line.strip_prefix("| `").and_then(|rest| rest.split_once("` |")) {
            Some((statement, _)) => {
                count += 1;
                let cells = refusal(&runtime, &engine, statement);
                let [message, hint] = [cells.0, cells.1].map(|cell| cell.replace('|', "\\|").replace('\n', " "));
                format!("| `{statement}` | {message} | {hint} |")
            }
            None => line.to_string(),
        });
        let made = lines.collect::<Vec<_>>().join("\n") + "\n";
        (count, page, made)
    });
    let (count, page, made) = made.expect("a thread").join().expect("every statement is judged");
    assert!(count > 100, "only {count} statements");
    if std::env::var_os("BIFOLD_WRITE_DOCS").is_some() {
        std::fs::write(&path, made).expect("the page is written");
        return;
    }
    for (written, made) in page.lines().zip(made.lines()) {
        assert_eq!(written, made);
    }
}
