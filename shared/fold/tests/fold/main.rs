//! scratch
use bifold_fold::{pipeline, Engine, view};
const SRC: &str = "CREATE TABLE wikipedia (
  time TIMESTAMP, channel TEXT, page TEXT, \"user\" TEXT, \"isRobot\" BOOLEAN, added BIGINT, price DECIMAL(10,2), tags TEXT[],
  s STRUCT<a INT, b STRUCT<c TEXT>>,
  WATERMARK FOR time AS time - INTERVAL '10 seconds'
) WITH (connector = 'kafka', topic = 'wikipedia', format = 'json');

";
async fn show(text: &str) {
    println!("=================");
    let text2 = text.strip_prefix(SRC).unwrap_or(text);
    println!("{text2}\n--");
    match pipeline::parse("p.sql", text, 1<<20) {
        Err(e) => println!("{e}"),
        Ok(p) => match view::compile_all(&Engine::new(), &p).await {
            Err(e) => println!("compile: {e}"),
            Ok(v) => { println!("OK {:?}", p.sources.last()); for v in v { println!("  {} keys {:?} time {:?} approx {:?} needed {:?} states {:?}\n  {}\n {:?}", v.version, v.keys, v.time_column, v.approximate, v.needed, v.state_ids, v.sql, v.output.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect::<Vec<_>>()) } }
        }
    }
}
#[tokio::test]
async fn scratch() {
    let views = std::fs::read_to_string(std::env::var("VIEWS").unwrap()).unwrap();
    for v in views.split("\n----\n") {
        let v = v.trim_end();
        if !v.starts_with("CREATE") && std::env::var("RAW").is_err() { show(&format!("{SRC}CREATE MATERIALIZED VIEW v AS\n{v}")).await }
        else if let Some(v) = v.strip_prefix("+") { show(&format!("{SRC}{v}")).await }
        else { show(v).await }
    }
}
