//! `corr(y, x)`: the correlation of two columns.
//!
//! DataFusion's own, but for two things. Grouped, it keeps plain sums of products, in which a large mean drowns the
//! spread: merged and recomputed answers then differ far beyond rounding. Here every group takes its ungrouped
//! accumulator, which keeps means and squared deviations. And a column that does not vary has no correlation, however
//! its mean was rounded when states merged.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::correlation::{Correlation, CorrelationAccumulator};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature};

/// Deviations below this part of the mean are its rounding.
const ROUNDING: f64 = 8.0 * f64::EPSILON;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Corr(Correlation);

impl Corr {
    pub(super) fn new() -> Self {
        Self(Correlation::new())
    }
}

impl AggregateUDFImpl for Corr {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.0.return_type(arguments)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.0.state_fields(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Varying(CorrelationAccumulator::try_new()?)))
    }
}

#[derive(Debug)]
struct Varying(CorrelationAccumulator);

impl Accumulator for Varying {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(values)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.0.supports_retract_batch()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let state = self.0.state()?;
        if let [
            ScalarValue::UInt64(Some(count)),
            ScalarValue::Float64(Some(mean1)),
            ScalarValue::Float64(Some(squares1)),
            ScalarValue::Float64(Some(mean2)),
            ScalarValue::Float64(Some(squares2)),
            _,
        ] = state[..]
        {
            let varies =
                |mean: f64, squares: f64| squares.is_nan() || squares > count as f64 * (mean * ROUNDING).powi(2);
            if !varies(mean1, squares1) || !varies(mean2, squares2) {
                return Ok(ScalarValue::Float64(None));
            }
        }
        self.0.evaluate()
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}
