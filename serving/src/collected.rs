//! `array_agg` and `string_agg` in queries: what they make counts as the query's memory. As window functions they make a value for every
//! row, each as large as the frame, and DataFusion counts none of them.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::functions_aggregate::string_agg::string_agg_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature,
};

/// Both, for one query with this memory.
pub(crate) fn all(memory: &Arc<dyn MemoryPool>) -> [AggregateUDF; 2] {
    let held = MemoryConsumer::new("the values that array_agg and string_agg make").register(memory);
    let made = Made { held: Arc::new(held) };
    [array_agg_udaf(), string_agg_udaf()].map(|original| AggregateUDF::from(Collected { original, made: made.clone() }))
}

/// What a query's calls have made together.
#[derive(Clone, Debug)]
struct Made {
    held: Arc<MemoryReservation>,
}

impl Made {
    fn add(&self, value: ScalarValue) -> Result<ScalarValue> {
        self.held.try_grow(value.size())?;
        Ok(value)
    }
}

#[derive(Debug)]
struct Collected {
    original: Arc<AggregateUDF>,
    made: Made,
}

impl PartialEq for Collected {
    fn eq(&self, other: &Self) -> bool {
        self.original == other.original
    }
}

impl Eq for Collected {}

impl std::hash::Hash for Collected {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.original.hash(state);
    }
}

impl AggregateUDFImpl for Collected {
    fn name(&self) -> &str {
        self.original.name()
    }

    fn signature(&self) -> &Signature {
        self.original.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.original.return_type(types)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.original.state_fields(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::HardRequirement
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One { inner: self.original.accumulator(args)?, made: self.made.clone() }))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One { inner: self.original.create_sliding_accumulator(args)?, made: self.made.clone() }))
    }

    // Of groups the states are counted.
    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.original.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.original.create_groups_accumulator(args)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::NotSupported
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.original.supports_null_handling_clause()
    }
}

#[derive(Debug)]
struct One {
    inner: Box<dyn Accumulator>,
    made: Made,
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.made.add(self.inner.evaluate()?)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }
}
