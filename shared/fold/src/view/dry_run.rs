//! Runs a new view once over an event without values: what DataFusion plans but cannot evaluate, such as an operator
//! that no type has, is refused here and not at the first event.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use datafusion::common::ScalarValue;

use super::View;
use crate::Result;
use crate::engine::Engine;
use crate::states::Input;

/// Folds the event and finishes the view.
pub(super) async fn dry_run(engine: &Engine, view: &Arc<View>) -> Result<()> {
    let schema = view.source.schema();
    let column = |field: &Arc<arrow::datatypes::Field>| -> Result<ArrayRef> {
        match field.is_nullable() {
            true => Ok(new_null_array(field.data_type(), 1)),
            false => Ok(ScalarValue::new_default(field.data_type())?.to_array()?),
        }
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let event = RecordBatch::try_new(schema, columns)?;
    let states = Input::new(engine, Arc::clone(view)).await?.fold(&[event]).await?;
    view.finish(engine, states).await.map(drop)
}
