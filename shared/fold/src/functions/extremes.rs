//! `min` and `max`: DataFusion's own, but of doubles.
//!
//! Grouped, DataFusion's start from the largest and the smallest finite double, so that a group of infinities has the wrong
//! one, and keep or drop a NaN by where it stands. Here NaN is greater than every number, as in PostgreSQL; values come with one
//! NaN and one zero, so the total order of doubles is that of SQL.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, Signature,
};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;

/// Which value of a group is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kept {
    Least,
    Greatest,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Extreme {
    original: Arc<AggregateUDF>,
    kept: Kept,
}

impl Extreme {
    /// `min`
    pub(super) fn min() -> Self {
        Self { original: min_udaf(), kept: Kept::Least }
    }

    /// `max`
    pub(super) fn max() -> Self {
        Self { original: max_udaf(), kept: Kept::Greatest }
    }
}

impl Kept {
    /// Whether `new` takes the place of `old`.
    fn takes(self, new: f64, old: f64) -> bool {
        match self {
            Kept::Least => new.total_cmp(&old).is_lt(),
            Kept::Greatest => new.total_cmp(&old).is_gt(),
        }
    }

    /// The value that every other takes the place of, or equals.
    fn first(self) -> f64 {
        match self {
            Kept::Least => f64::NAN,
            Kept::Greatest => f64::NEG_INFINITY,
        }
    }
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.original.name()
    }

    fn signature(&self) -> &Signature {
        self.original.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.original.return_type(types)
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        self.original.return_field(fields)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.original.coerce_types(types)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.original.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match args.return_type() {
            ty @ (DataType::Float64 | DataType::Float32) => {
                Ok(Box::new(One { kept: self.kept, ty: ty.clone(), value: None }))
            }
            _ => self.original.accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.original.create_sliding_accumulator(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.original.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let kept = self.kept;
        match args.return_type() {
            DataType::Float64 => Ok(grouped::<Float64Type>(kept.first(), move |old, new| {
                if kept.takes(new, *old) {
                    *old = new;
                }
            })),
            DataType::Float32 => Ok(grouped::<Float32Type>(kept.first() as f32, move |old, new| {
                if kept.takes(new.into(), (*old).into()) {
                    *old = new;
                }
            })),
            _ => self.original.create_groups_accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.original.documentation()
    }
}

fn grouped<T>(
    first: T::Native,
    keep: impl Fn(&mut T::Native, T::Native) + Send + Sync + 'static,
) -> Box<dyn GroupsAccumulator>
where
    T: ArrowPrimitiveType + Send,
{
    Box::new(PrimitiveGroupsAccumulator::<T, _>::new(&T::DATA_TYPE, keep).with_starting_value(first))
}

/// The extreme of one group.
#[derive(Debug)]
struct One {
    kept: Kept,
    ty: DataType,
    value: Option<f64>,
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first() else { return internal_err!("an extreme has one argument") };
        match values.data_type() {
            DataType::Float64 => self.take(values.as_primitive::<Float64Type>()),
            DataType::Float32 => self.take(values.as_primitive::<Float32Type>()),
            other => return internal_err!("{other} is not a double"),
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(match self.ty {
            DataType::Float32 => ScalarValue::Float32(self.value.map(|value| value as f32)),
            _ => ScalarValue::Float64(self.value),
        })
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

impl One {
    fn take<T: ArrowPrimitiveType>(&mut self, values: &PrimitiveArray<T>)
    where
        f64: From<T::Native>,
    {
        for value in values.iter().flatten().map(f64::from) {
            if self.value.is_none_or(|old| self.kept.takes(value, old)) {
                self.value = Some(value);
            }
        }
    }
}
