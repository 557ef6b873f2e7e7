//! `approx_distinct(x)`: the number of distinct values, by HyperLogLog from the datasketches crate (HLL_8, lgK 12:
//! 4 KiB at most, about 1.6 % standard error).
//!
//! Values are hashed as raw bytes: integers as 64-bit little endian, texts as UTF-8, so that a value counts the same
//! whatever Arrow type carries it. The result is the composite estimate, made from the registers alone: the same set
//! gives the same number, bit for bit, however it was cut and merged. States are sketches in the DataSketches format.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Field, FieldRef, Float64Type, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility};
use datasketches::hash::value::raw_bytes;
use datasketches::hll::{HllSketch, HllType, HllUnion};

const LG_K: u8 = 12;

fn failed(error: impl std::fmt::Display) -> DataFusionError {
    DataFusionError::Execution(format!("approx_distinct: {error}"))
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ApproxDistinct {
    signature: Signature,
}

impl ApproxDistinct {
    pub(super) fn new() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for ApproxDistinct {
    fn name(&self) -> &str {
        "approx_distinct"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match &arguments[0] {
            ty if is_hashable(ty) => Ok(DataType::Int64),
            ty => plan_err!("approx_distinct does not take values of type {ty}"),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[hll]", args.name), DataType::Binary, true))])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn default_value(&self, _: &DataType) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(0)))
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One(Sketches::default())))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Sketches::default()))
    }
}

fn is_hashable(ty: &DataType) -> bool {
    ty.is_integer()
        || ty.is_floating()
        || ty.is_temporal()
        || matches!(
            ty,
            DataType::Boolean
                | DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Binary
                | DataType::LargeBinary
                | DataType::BinaryView
                | DataType::Decimal128(..)
                | DataType::Decimal256(..)
                | DataType::Null
        )
}

/// Calls `f` with the place and the canonical bytes of every value that is not null.
fn each(values: &ArrayRef, mut f: impl FnMut(usize, &[u8])) -> Result<()> {
    macro_rules! bytes {
        ($array:expr) => {
            for (i, value) in $array.iter().enumerate() {
                if let Some(value) = value {
                    f(i, value.as_ref());
                }
            }
        };
    }
    macro_rules! numbers {
        ($array:expr, $canonical:expr) => {
            for (i, value) in $array.iter().enumerate() {
                if let Some(value) = value {
                    f(i, &$canonical(value).to_le_bytes());
                }
            }
        };
    }
    match values.data_type() {
        DataType::Null => {}
        DataType::Utf8 => bytes!(values.as_string::<i32>()),
        DataType::LargeUtf8 => bytes!(values.as_string::<i64>()),
        DataType::Utf8View => bytes!(values.as_string_view()),
        DataType::Binary => bytes!(values.as_binary::<i32>()),
        DataType::LargeBinary => bytes!(values.as_binary::<i64>()),
        DataType::BinaryView => bytes!(values.as_binary_view()),
        DataType::Int64 => numbers!(values.as_primitive::<Int64Type>(), |v: i64| v),
        DataType::Decimal128(..) => numbers!(values.as_primitive::<Decimal128Type>(), |v: i128| v),
        DataType::Decimal256(..) => numbers!(values.as_primitive::<Decimal256Type>(), |v: arrow::datatypes::i256| v),
        ty if ty.is_floating() => {
            let doubles = cast(values, &DataType::Float64)?;
            // One zero and one NaN.
            let canonical = |v: f64| {
                if v == 0.0 {
                    0.0
                } else if v.is_nan() {
                    f64::NAN
                } else {
                    v
                }
            };
            numbers!(doubles.as_primitive::<Float64Type>(), canonical);
        }
        ty if ty.is_integer() || ty.is_temporal() || *ty == DataType::Boolean => {
            let integers = cast(values, &DataType::Int64)?;
            numbers!(integers.as_primitive::<Int64Type>(), |v: i64| v);
        }
        ty => return exec_err!("approx_distinct does not take values of type {ty}"),
    }
    Ok(())
}

/// A sketch for each group that has seen a value. One type behind both traits, so that states of grouped and of
/// ungrouped views are the same.
#[derive(Default)]
struct Sketches {
    groups: Vec<Option<HllSketch>>,
    bytes: usize,
}

impl std::fmt::Debug for Sketches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sketches").field("groups", &self.groups.len()).finish_non_exhaustive()
    }
}

impl Sketches {
    fn take(&mut self, emit: EmitTo) -> Vec<Option<HllSketch>> {
        let taken = emit.take_needed(&mut self.groups);
        self.bytes = self.groups.iter().flatten().map(HllSketch::estimated_size).sum();
        taken
    }
}

impl GroupsAccumulator for Sketches {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.groups.resize_with(total, || None);
        let mut new = 0;
        let sketches = &mut self.groups;
        each(&values[0], |i, bytes| {
            if filter.is_none_or(|filter| filter.is_valid(i) && filter.value(i)) {
                let sketch = sketches[groups[i]].get_or_insert_with(|| {
                    new += 1;
                    HllSketch::new(LG_K, HllType::Hll8).expect("the size is a legal one")
                });
                sketch.update(raw_bytes::from_slice(bytes));
            }
        })?;
        // Sketches grow from tens of bytes to 4 KiB; half a kilobyte is what a new one is counted as.
        self.bytes += new * 512;
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.groups.resize_with(total, || None);
        for (i, bytes) in states[0].as_binary::<i32>().iter().enumerate() {
            let Some(bytes) = bytes else { continue };
            let sketch = HllSketch::deserialize(bytes).map_err(failed)?;
            let slot = &mut self.groups[groups[i]];
            let merged = match slot.take() {
                None => sketch,
                Some(other) => {
                    let mut union = HllUnion::new(LG_K).map_err(failed)?;
                    union.update(&other);
                    union.update(&sketch);
                    self.bytes = self.bytes.saturating_sub(other.estimated_size());
                    union.to_sketch(HllType::Hll8)
                }
            };
            self.bytes += merged.estimated_size();
            *slot = Some(merged);
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        Ok(Arc::new(self.take(emit).iter().map(|sketch| Some(estimate(sketch.as_ref()))).collect::<Int64Array>()))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let states = self.take(emit);
        Ok(vec![Arc::new(states.iter().map(|s| s.as_ref().map(HllSketch::serialize)).collect::<BinaryArray>())])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let mut sketches = Sketches::default();
        sketches.update_batch(values, &(0..rows).collect::<Vec<_>>(), filter, rows)?;
        sketches.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.bytes + self.groups.capacity() * size_of::<Option<HllSketch>>()
    }
}

/// How many distinct values a sketch has seen.
fn estimate(sketch: Option<&HllSketch>) -> i64 {
    sketch.map_or(0, |sketch| sketch.composite_estimate().round() as i64)
}

#[derive(Debug)]
struct One(Sketches);

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(values, &vec![0; values[0].len()], None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states, &vec![0; states[0].len()], 1)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.groups.resize_with(1, || None);
        let states = self.0.state(EmitTo::First(1))?;
        states.iter().map(|array| ScalarValue::try_from_array(array, 0)).collect()
    }

    /// Keeps the sketch: a window asks once per row.
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sketch = self.0.groups.first().and_then(Option::as_ref);
        Ok(ScalarValue::Int64(Some(estimate(sketch))))
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}
