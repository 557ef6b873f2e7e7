//! `bifold check`: reads and compiles the pipeline.

use serde_json::json;

use crate::args::{Check, Common};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;

pub(crate) async fn run(common: &Common, check: Check) -> Result<(), Exit> {
    let context = Context::load(common).await?;
    let view = |view: &std::sync::Arc<bifold_fold::View>| {
        json!({
            "view": view.name,
            "source": view.source.name,
            "version": view.version,
            "keys": view.keys.join(", "),
            "time_column": view.time_column,
            "columns": view.output.fields().iter()
                .map(|f| format!("{} {}", f.name(), bifold_serving::json::type_name(f.data_type())))
                .collect::<Vec<_>>().join(", "),
        })
    };
    let views: Vec<_> = context.views.iter().map(view).collect();
    let columns = ["view", "source", "version", "keys", "time_column", "columns"];
    output::objects(check.shot.output(), &columns, &views)
}
