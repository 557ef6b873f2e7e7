//! The function that makes every NaN the same NaN, and -0.0 the zero; also inside lists and structs.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StructArray};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

#[derive(Debug, PartialEq, Eq, Hash)]
struct Canonical(Signature);

/// The call of the function.
pub(crate) fn call(expr: Expr) -> Expr {
    let function = ScalarUDF::from(Canonical(Signature::any(1, Volatility::Immutable)));
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![expr]))
}

/// Whether a function is this one.
pub(crate) fn is_canonical(function: &ScalarUDF) -> bool {
    function.inner().downcast_ref::<Canonical>().is_some()
}

/// Whether an expression is a call of it.
pub(crate) fn is_call(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if is_canonical(&call.func))
}

/// The argument of a call.
pub(crate) fn argument(call: &ScalarFunction) -> Option<&Expr> {
    call.args.first()
}

/// Whether values of a type are doubles or hold some.
pub(crate) fn has_floats(ty: &DataType) -> bool {
    match ty {
        DataType::Float32 | DataType::Float64 => true,
        DataType::List(item) => has_floats(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_floats(field.data_type())),
        _ => false,
    }
}

/// The value that a constant is to be, if it is another.
pub(crate) fn of_scalar(value: &ScalarValue) -> Option<ScalarValue> {
    match value {
        ScalarValue::Float64(Some(value)) if double(*value).to_bits() != value.to_bits() => {
            Some(ScalarValue::Float64(Some(double(*value))))
        }
        ScalarValue::Float32(Some(value)) if single(*value).to_bits() != value.to_bits() => {
            Some(ScalarValue::Float32(Some(single(*value))))
        }
        _ => None,
    }
}

fn double(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

fn single(value: f32) -> f32 {
    if value.is_nan() { f32::NAN } else { value + 0.0 }
}

/// An array with one NaN and one zero.
///
/// # Errors
/// Arrow's failure.
pub(crate) fn of_array(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match array.data_type() {
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            // Nearly always there is nothing to do.
            if values.values().iter().all(|value| double(*value).to_bits() == value.to_bits()) {
                return Ok(Arc::clone(array));
            }
            Arc::new(values.unary::<_, Float64Type>(double))
        }
        DataType::Float32 => Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(single)),
        ty if !has_floats(ty) => Arc::clone(array),
        DataType::List(item) => {
            let list = array.as_list::<i32>();
            let (offsets, values, nulls) = (list.offsets().clone(), of_array(list.values())?, list.nulls().cloned());
            Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, nulls)?)
        }
        DataType::Struct(fields) => {
            let structs = array.as_struct();
            let columns = structs.columns().iter().map(of_array).collect::<Result<Vec<_>, _>>()?;
            let nulls = structs.nulls().cloned();
            Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, array.len())?)
        }
        _ => Arc::clone(array),
    })
}

impl ScalarUDFImpl for Canonical {
    fn name(&self) -> &str {
        "canonical"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        types.first().cloned().map_or_else(|| internal_err!("canonical takes a value"), Ok)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        args.arg_fields.first().cloned().map_or_else(|| internal_err!("canonical takes a value"), Ok)
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.iter().map(|arg| arg.schema_name().to_string()).collect())
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        self.schema_name(args)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        let constant = inputs.iter().all(|input| input.sort_properties == SortProperties::Singleton);
        Ok(if constant { SortProperties::Singleton } else { SortProperties::Unordered })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.into_iter().next() {
            Some(ColumnarValue::Array(array)) => Ok(ColumnarValue::Array(of_array(&array)?)),
            Some(ColumnarValue::Scalar(value)) => {
                let array = of_array(&value.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
            None => internal_err!("canonical takes a value"),
        }
    }
}
