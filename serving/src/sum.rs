//! `sum` in queries: exact, or an error. DataFusion's own wraps around beyond 64 bits, or 38 digits.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};

/// What a sum is added up in so that it cannot wrap; none where DataFusion's own does not.
fn wide_of(ty: &DataType) -> Option<DataType> {
    match ty {
        DataType::Int64 | DataType::UInt64 => Some(DataType::Decimal128(38, 0)),
        // Of fewer digits it would take 10^10 rows.
        DataType::Decimal128(38, scale) => Some(DataType::Decimal256(76, *scale)),
        _ => None,
    }
}

/// A sum beyond its type.
#[derive(Debug, thiserror::Error)]
#[error("a sum of the query is beyond {0}")]
pub(crate) struct Overflow(DataType);

/// `sum` as queries have it.
pub(crate) fn sum() -> AggregateUDF {
    AggregateUDF::from(Sum(sum_udaf()))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sum(Arc<AggregateUDF>);

/// The type of a sum, and what it is added up in.
#[derive(Clone, Debug)]
struct Types {
    ty: DataType,
    wide: DataType,
}

impl Types {
    fn of(ty: &DataType) -> Option<Self> {
        Some(Self { ty: ty.clone(), wide: wide_of(ty)? })
    }

    fn widen(&self, values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        Ok(values.iter().map(|array| cast(array, &self.wide)).collect::<std::result::Result<_, _>>()?)
    }

    /// Exact sums in their type.
    fn narrow(&self, sums: &ArrayRef) -> Result<ArrayRef> {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let made = cast_with_options(sums, &self.ty, &options);
        made.map_err(|_| DataFusionError::External(Box::new(Overflow(self.ty.clone()))))
    }
}

fn widened(field: &FieldRef, wide: &DataType) -> FieldRef {
    Arc::new(Field::new(field.name(), wide.clone(), true))
}

fn wide<'a>(args: &AccumulatorArgs<'a>, types: &Types) -> AccumulatorArgs<'a> {
    AccumulatorArgs {
        return_field: widened(&args.return_field, &types.wide),
        schema: args.schema,
        ignore_nulls: args.ignore_nulls,
        order_bys: args.order_bys,
        is_reversed: args.is_reversed,
        name: args.name,
        is_distinct: args.is_distinct,
        exprs: args.exprs,
        expr_fields: args.expr_fields,
    }
}

impl AggregateUDFImpl for Sum {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.return_type(types)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.0.coerce_types(types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match Types::of(args.return_type()) {
            Some(types) => Ok(Box::new(One { inner: self.0.accumulator(wide(&args, &types))?, types })),
            None => self.0.accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match Types::of(args.return_type()) {
            // Distinct values of a sliding frame are added up for 64-bit integers alone.
            Some(types) if !args.is_distinct => {
                Ok(Box::new(One { inner: self.0.create_sliding_accumulator(wide(&args, &types))?, types }))
            }
            _ => self.0.create_sliding_accumulator(args),
        }
    }

    fn state_fields(&self, mut args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if let Some(wide) = wide_of(args.return_field.data_type()) {
            args.return_field = widened(&args.return_field, &wide);
        }
        self.0.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.0.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        match Types::of(args.return_type()) {
            Some(types) => {
                Ok(Box::new(Groups { inner: self.0.create_groups_accumulator(wide(&args, &types))?, types }))
            }
            None => self.0.create_groups_accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// One sum.
#[derive(Debug)]
struct One {
    inner: Box<dyn Accumulator>,
    types: Types,
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(&self.types.widen(values)?)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(&self.types.widen(values)?)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = self.inner.evaluate()?.to_array()?;
        ScalarValue::try_from_array(&self.types.narrow(&sum)?, 0)
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

/// The sums of many groups.
struct Groups {
    inner: Box<dyn GroupsAccumulator>,
    types: Types,
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.inner.update_batch(&self.types.widen(values)?, groups, filter, total)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        self.types.narrow(&self.inner.evaluate(emit)?)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.inner.merge_batch(states, groups, total)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(&self.types.widen(values)?, filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}
