//! `bifold files`: the files that hold a source's archive, or its batch views, now.

use bifold_ledger::{File, Ledger};
use bifold_store::Journal;
use serde_json::{Value, json};

use crate::args::{Common, Files, Layer};
use crate::context::{Context, within};
use crate::exit::Exit;
use crate::output;

const COLUMNS: [&str; 7] = ["layer", "kind", "view", "version", "rows", "bytes", "path"];

pub(crate) async fn run(common: &Common, files: Files) -> Result<(), Exit> {
    let context = Context::load(common).await?;
    let source = context.source(&files.source)?;
    let of_source = context.files(&source.name)?;
    let opened = Journal::open(of_source.clone(), "cli");
    let journal = within(files.shot.timeout, &context.store_name(), opened).await?;
    let place = |file: &File| place(&context.config.store.url, of_source.layout.object(&file.path).as_ref());
    let rows = match files.layer {
        Layer::Archive => archive(&journal.ledger(), place),
        Layer::View => views(&journal.ledger(), place),
    };
    if files.list {
        let wanted = rows.iter().filter(|row| row["kind"] != "dead_letters").filter_map(|row| row["path"].as_str());
        let quoted: Vec<String> = wanted.map(|path| format!("'{}'", path.replace('\'', "''"))).collect();
        return output::line(&format!("[{}]", quoted.join(", ")));
    }
    output::objects(files.shot.output(), &COLUMNS, &rows)
}

/// Where an object of the store is, for other tools: a path of the file system, or a URL.
fn place(store: &str, object: &str) -> String {
    match store.strip_prefix("file://") {
        Some(folder) => format!("{}/{object}", folder.trim_end_matches('/')),
        None => {
            // The object's path has the store's prefix already.
            let bucket = store.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
            format!("{bucket}/{object}")
        }
    }
}

fn archive(ledger: &Ledger, place: impl Fn(&File) -> String) -> Vec<Value> {
    let of = |kind: &'static str, files: &[File]| -> Vec<Value> {
        let row = |file: &File| json!({ "layer": "archive", "kind": kind, "rows": file.rows, "bytes": file.bytes, "path": place(file) });
        files.iter().map(row).collect()
    };
    ledger.archive.iter().flat_map(|unit| [of("rows", &unit.rows), of("dead_letters", &unit.dead)].concat()).collect()
}

fn views(ledger: &Ledger, place: impl Fn(&File) -> String) -> Vec<Value> {
    let mut rows = vec![];
    for (version, state) in ledger.versions.iter().filter(|(_, state)| state.active) {
        rows.extend(state.runs.iter().map(|run| {
            json!({
                "layer": "view", "kind": "states", "view": state.view, "version": version, "rows": run.rows, "bytes": run.bytes,
                "path": place(run),
            })
        }));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn other_tools_find_a_file_where_it_is() {
        assert_eq!(
            place("file:///data/store", "sources/e/archive/1.parquet"),
            "/data/store/sources/e/archive/1.parquet"
        );
        assert_eq!(place("s3://bucket/a/b", "a/b/sources/e/1.parquet"), "s3://bucket/a/b/sources/e/1.parquet");
        assert_eq!(place("s3://bucket", "sources/e/1.parquet"), "s3://bucket/sources/e/1.parquet");
    }
}
