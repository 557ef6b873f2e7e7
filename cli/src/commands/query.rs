//! `bifold query`: asks the server.

use serde_json::Value;

use crate::args::{Common, Output, Query};
use crate::client::Client;
use crate::context::configuration;
use crate::exit::Exit;
use crate::output;

pub(crate) async fn run(common: &Common, query: Query) -> Result<(), Exit> {
    let config = configuration(common, &[])?;
    let client = Client::new(&config, &query.shot);
    let reply = client.sql(&query.sql, query.at_least.as_deref()).await?.answer()?;
    let shape = query.shot.output();
    let body = reply.json()?;
    for warning in body["warnings"].as_array().into_iter().flatten() {
        eprintln!("warning: {}", warning["message"].as_str().unwrap_or_default());
    }
    for line in output::left_out(&body["coverage"]) {
        eprintln!("warning: {line}");
    }
    if shape == Output::Json {
        return output::line(&reply.text);
    }
    let columns: Vec<&str> =
        body["columns"].as_array().into_iter().flatten().filter_map(|column| column["name"].as_str()).collect();
    let rows: Vec<Value> = body["rows"].as_array().cloned().unwrap_or_default();
    output::objects(shape, &columns, &rows)?;
    if shape == Output::Table {
        for line in output::coverage_lines(&body["coverage"]) {
            output::line(&line)?;
        }
    }
    Ok(())
}
